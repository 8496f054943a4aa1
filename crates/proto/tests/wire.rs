//! The bytes on the wire are etcd's: numbers and types of fields, checked
//! against encodings written out by hand.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    Compare, Member, RangeRequest, RequestOp, ResponseHeader, StatusResponse, WatchResponse,
    compare, range_request, request_op,
};
use proto::mvccpb::{Event, KeyValue};

#[track_caller]
fn assert_wire<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, wire: &[u8]) {
    assert_eq!(message.encode_to_vec(), wire);
    assert_eq!(&M::decode(wire).expect("decodes"), message);
}

#[test]
fn key_value() {
    let kv = KeyValue {
        key: Bytes::from_static(b"a"),
        create_revision: 2,
        mod_revision: 3,
        version: 4,
        value: Bytes::from_static(b"b"),
        lease: -1,
    };
    let mut wire = b"\x0a\x01a\x10\x02\x18\x03\x20\x04\x2a\x01b\x30".to_vec();
    // A negative 64-bit number takes ten bytes.
    wire.extend([0xff; 9]);
    wire.push(1);
    assert_wire(&kv, &wire);
}

#[test]
fn range_request() {
    let range = RangeRequest {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"l"),
        limit: 1,
        revision: 2,
        sort_order: range_request::SortOrder::Descend.into(),
        sort_target: range_request::SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 10,
        max_mod_revision: 11,
        min_create_revision: 12,
        max_create_revision: 13,
    };
    let wire = b"\x0a\x01k\x12\x01l\x18\x01\x20\x02\x28\x02\x30\x04\x38\x01\x40\x01\x48\x01\
        \x50\x0a\x58\x0b\x60\x0c\x68\x0d";
    assert_wire(&range, wire);
}

#[test]
fn compare_keeps_its_range_far_behind_the_operand() {
    let compare = Compare {
        result: compare::CompareResult::NotEqual.into(),
        target: compare::CompareTarget::Lease.into(),
        key: Bytes::from_static(b"k"),
        target_union: Some(compare::TargetUnion::Lease(0)),
        range_end: Bytes::from_static(b"l"),
    };
    // An operand of zero is written: it says which operand it is.
    assert_wire(&compare, b"\x08\x03\x10\x04\x1a\x01k\x40\x00\x82\x04\x01l");
}

#[test]
fn an_operation_without_a_request_is_empty() {
    assert_wire(&RequestOp { request: None }, b"");
    let range = request_op::Request::RequestRange(RangeRequest::default());
    assert_wire(&RequestOp { request: Some(range) }, b"\x0a\x00");
}

#[test]
fn events_of_a_watch_are_field_eleven() {
    let response = WatchResponse {
        events: vec![Event { r#type: 1, ..Event::default() }],
        ..WatchResponse::default()
    };
    assert_wire(&response, b"\x5a\x02\x08\x01");
}

#[test]
fn ids_use_all_64_bits() {
    let header = ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 2, raft_term: 3 };
    let mut wire = vec![0x08];
    wire.extend([0xff; 9]);
    wire.extend(b"\x01\x10\x01\x18\x02\x20\x03");
    assert_wire(&header, &wire);
}

#[test]
fn member_and_status() {
    let member = Member {
        id: 1,
        name: "n".into(),
        peer_urls: vec!["p".into(), "q".into()],
        client_urls: vec!["c".into()],
        is_learner: true,
    };
    assert_wire(&member, b"\x08\x01\x12\x01n\x1a\x01p\x1a\x01q\x22\x01c\x28\x01");
    let status = StatusResponse {
        version: "v".into(),
        db_size: 3,
        leader: 4,
        raft_index: 5,
        raft_term: 6,
        raft_applied_index: 7,
        errors: vec!["e".into()],
        db_size_in_use: 9,
        is_learner: true,
        storage_version: "s".into(),
        db_size_quota: 12,
        ..StatusResponse::default()
    };
    assert_wire(
        &status,
        b"\x12\x01v\x18\x03\x20\x04\x28\x05\x30\x06\x38\x07\x42\x01e\x48\x09\x50\x01\x5a\x01s\x60\x0c",
    );
}

#[test]
fn unknown_fields_and_enum_values_are_accepted() {
    // sort_order 77, and a field 1000 that nobody has defined.
    let range = RangeRequest::decode(&b"\x28\x4d\xc0\x3e\x01"[..]).expect("decodes");
    assert_eq!(range.sort_order, 77);
    assert!(range_request::SortOrder::try_from(range.sort_order).is_err());
}

#[test]
fn decoded_bytes_share_the_buffer() {
    let wire = Bytes::from_static(b"\x0a\x03key");
    let kv = KeyValue::decode(wire.clone()).expect("decodes");
    assert_eq!(kv.key.as_ptr(), wire[2..].as_ptr());
}
