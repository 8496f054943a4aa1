//! Batches: what one append writes and one sync makes durable.
//!
//! A batch is a head, a table of its entries' ids and checksums, and their payloads; table and
//! head stand again at its end, in another sector. It fills whole blocks. The first batch of a
//! segment is preceded, in the same write, by the segment's header block.

use bytes::{Bytes, BytesMut};

use crate::block_buffer::BlockBuffer;
use crate::checksum::Hasher;
use crate::sector::{
    BLOCK, BLOCK_SECTORS, CONTENT, SECTOR, Salt, Sector, content, gather, scatter, scatter_zeros,
    seal, word32, word64,
};
use crate::{EntryId, HardState, Record};

/// Bytes of a batch's head.
pub(crate) const HEAD: usize = 104;
/// Bytes of a row of the table.
pub(crate) const ROW: usize = 24;

/// The version of segments. A release that changes their format raises it.
pub(crate) const SEGMENT_VERSION: u32 = 1;

const HEAD_MAGIC: u64 = u64::from_le_bytes(*b"RKVBATCH");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"RKVTRAIL");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"RKVSEGMT");

/// Where the log stands after a batch; the next one names all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Number of the batch; 0 before the first.
    pub(crate) batch: u64,
    /// Its hash, which covers the hash of the one before, and so on.
    pub(crate) hash: u64,
    /// Id of the last entry.
    pub(crate) last: EntryId,
}

impl Chain {
    /// Before the first batch of a log.
    pub(crate) fn start(wal_id: u64) -> Chain {
        Chain { batch: 0, hash: Hasher::new(wal_id).finish(), last: EntryId::default() }
    }
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) wal_id: u64,
    pub(crate) batch: u64,
    pub(crate) previous_hash: u64,
    pub(crate) previous_last: EntryId,
    pub(crate) hard_state: HardState,
    pub(crate) commit: u64,
    pub(crate) first_index: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) count: u32,
    pub(crate) sectors: u32,
    pub(crate) hash: u64,
}

impl Head {
    pub(crate) fn previous(&self) -> Chain {
        Chain {
            batch: self.batch.wrapping_sub(1),
            hash: self.previous_hash,
            last: self.previous_last,
        }
    }

    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> u64 {
        (self.first_index + u64::from(self.count)).saturating_sub(1)
    }

    /// Bytes of head and table.
    pub(crate) fn front_bytes(&self) -> usize {
        HEAD + ROW * self.count as usize
    }

    fn encode(&self, magic: u64) -> [u8; HEAD] {
        let words = [
            magic,
            self.wal_id,
            self.batch,
            self.previous_hash,
            self.previous_last.term,
            self.previous_last.index,
            self.hard_state.term,
            self.hard_state.vote,
            self.commit,
            self.first_index,
            self.payload_bytes,
            u64::from(self.count) | u64::from(self.sectors) << 32,
            self.hash,
        ];
        let mut bytes = [0; HEAD];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8], magic: u64) -> Option<Head> {
        let head = Head {
            wal_id: word64(bytes, 8),
            batch: word64(bytes, 16),
            previous_hash: word64(bytes, 24),
            previous_last: EntryId { term: word64(bytes, 32), index: word64(bytes, 40) },
            hard_state: HardState { term: word64(bytes, 48), vote: word64(bytes, 56) },
            commit: word64(bytes, 64),
            first_index: word64(bytes, 72),
            payload_bytes: word64(bytes, 80),
            count: word32(bytes, 88),
            sectors: word32(bytes, 92),
            hash: word64(bytes, 96),
        };
        let plausible = word64(bytes, 0) == magic
            && head.batch > 0
            && head.first_index.checked_add(u64::from(head.count)).is_some()
            && sectors_for(head.count as usize, head.payload_bytes) == Some(head.sectors);
        plausible.then_some(head)
    }

    /// The head that begins a batch's first sector, if this sector is one.
    pub(crate) fn of_first(sector: &[u8]) -> Option<Head> {
        Head::decode(content(sector), HEAD_MAGIC)
    }

    /// The head that ends a batch's last sector, if this sector is one.
    pub(crate) fn of_trailer(sector: &[u8]) -> Option<Head> {
        Head::decode(&content(sector)[CONTENT - HEAD..], TRAILER_MAGIC)
    }

    /// The hash of a batch: its head but for the hash itself, and its table, which holds the
    /// checksums of the payloads.
    fn hash(&self, table: &[u8]) -> u64 {
        let head = self.encode(HEAD_MAGIC);
        Hasher::new(self.wal_id).bytes(&head[..HEAD - 8]).bytes(table).finish()
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) term: u64,
    pub(crate) checksum: u64,
    pub(crate) len: u32,
    pub(crate) kind: u8,
}

impl Row {
    fn of(record: &Record) -> Row {
        Row {
            term: record.id.term,
            checksum: record_checksum(record.id, record.kind, &record.payload),
            len: record.payload.len() as u32,
            kind: record.kind,
        }
    }

    fn encode(&self) -> [u8; ROW] {
        let mut bytes = [0; ROW];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.len.to_le_bytes());
        bytes[20] = self.kind;
        bytes
    }

    fn decode(bytes: &[u8]) -> Row {
        Row {
            term: word64(bytes, 0),
            checksum: word64(bytes, 8),
            len: word32(bytes, 16),
            kind: bytes[20],
        }
    }
}

/// The checksum of an entry: over its id, kind and payload.
pub(crate) fn record_checksum(id: EntryId, kind: u8, payload: &[u8]) -> u64 {
    Hasher::new(id.index).word(id.term).word(u64::from(kind)).bytes(payload).finish()
}

/// Sectors of a batch: whole blocks, with the trailer's first byte in another sector than the
/// table's last. `None` if that is more than a head can say.
pub(crate) fn sectors_for(count: usize, payload_bytes: u64) -> Option<u32> {
    let front = (HEAD + ROW * count) as u64;
    let content = CONTENT as u64;
    let together = front.checked_mul(2)?.checked_add(payload_bytes)?;
    let mut sectors = together.div_ceil(content).next_multiple_of(BLOCK_SECTORS as u64);
    if (sectors * content - front) / content <= (front - 1) / content {
        sectors += BLOCK_SECTORS as u64;
    }
    u32::try_from(sectors).ok()
}

/// What is to be written.
pub(crate) struct Draft<'a> {
    pub(crate) previous: Chain,
    pub(crate) hard_state: HardState,
    pub(crate) commit: u64,
    pub(crate) records: &'a [Record],
    /// Of the batch, from [`sectors_for`].
    pub(crate) sectors: u32,
}

impl Draft<'_> {
    /// Fills `buffer` with the bytes to write at `offset` of a segment of `segment_len` bytes,
    /// with the segment's header block before the batch if `offset` is 0. Returns where the log
    /// stands afterwards.
    pub(crate) fn encode(
        &self,
        salt: Salt,
        offset: u64,
        segment_len: u64,
        buffer: &mut BlockBuffer,
    ) -> Chain {
        let lead = if offset == 0 { BLOCK } else { 0 };
        buffer.set_len(lead + self.sectors as usize * SECTOR);
        if lead > 0 {
            let header = SegmentHeader { salt, len: segment_len, previous: self.previous };
            buffer[..lead].fill(0);
            for sector in buffer[..lead].chunks_exact_mut(SECTOR) {
                scatter(sector, 0, &header.encode());
            }
        }
        let chain = self.fill(salt.wal_id, &mut buffer[lead..]);
        for (position, sector) in buffer.chunks_exact_mut(SECTOR).enumerate() {
            let at = offset + (position * SECTOR) as u64;
            seal(sector, at, salt, chain.batch, position as u32);
        }
        chain
    }

    /// Fills in all contents: nothing shows of what the sectors held before.
    fn fill(&self, wal_id: u64, sectors: &mut [u8]) -> Chain {
        let mut table = Vec::with_capacity(ROW * self.records.len());
        let mut at = HEAD + ROW * self.records.len();
        let mut last = self.previous.last;
        for record in self.records {
            table.extend_from_slice(&Row::of(record).encode());
            scatter(sectors, at, &record.payload);
            at += record.payload.len();
            last = record.id;
        }
        let mut head = Head {
            wal_id,
            batch: self.previous.batch + 1,
            previous_hash: self.previous.hash,
            previous_last: self.previous.last,
            hard_state: self.hard_state,
            commit: self.commit,
            first_index: self.records.first().map_or(last.index + 1, |record| record.id.index),
            payload_bytes: self.records.iter().map(|record| record.payload.len() as u64).sum(),
            count: self.records.len() as u32,
            sectors: self.sectors,
            hash: 0,
        };
        head.hash = head.hash(&table);
        scatter(sectors, 0, &head.encode(HEAD_MAGIC));
        scatter(sectors, HEAD, &table);
        let end = self.sectors as usize * CONTENT;
        scatter_zeros(sectors, at, end - HEAD - table.len());
        scatter(sectors, end - HEAD - table.len(), &table);
        scatter(sectors, end - HEAD, &head.encode(TRAILER_MAGIC));
        Chain { batch: head.batch, hash: head.hash, last }
    }
}

/// The header of a segment, eight times in its first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) salt: Salt,
    /// Of the segment, in bytes.
    pub(crate) len: u64,
    /// Where the log stood before the segment's first batch.
    pub(crate) previous: Chain,
}

/// Bytes of a segment's header.
const SEGMENT_HEADER: usize = 72;

impl SegmentHeader {
    fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let words = [
            SEGMENT_MAGIC,
            u64::from(SEGMENT_VERSION),
            self.salt.wal_id,
            self.salt.segment,
            self.len,
            self.previous.batch,
            self.previous.hash,
            self.previous.last.term,
            self.previous.last.index,
        ];
        let mut bytes = [0; SEGMENT_HEADER];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The first intact copy in a segment's first block, whichever log and segment it names, and
    /// the version of its format.
    pub(crate) fn find(block: &[u8]) -> Option<(SegmentHeader, u32)> {
        block.chunks_exact(SECTOR).take(BLOCK_SECTORS).enumerate().find_map(|(number, sector)| {
            let bytes = content(sector);
            let salt = Salt { wal_id: word64(bytes, 16), segment: word64(bytes, 24) };
            let sealed = Sector::judge(sector, (number * SECTOR) as u64, salt);
            if word64(bytes, 0) != SEGMENT_MAGIC || !matches!(sealed, Sector::Intact { .. }) {
                return None;
            }
            let previous = Chain {
                batch: word64(bytes, 40),
                hash: word64(bytes, 48),
                last: EntryId { term: word64(bytes, 56), index: word64(bytes, 64) },
            };
            Some((SegmentHeader { salt, len: word64(bytes, 32), previous }, word32(bytes, 8)))
        })
    }
}

/// A batch as found on disk, intact.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) rows: Vec<Row>,
    /// Offset of its first sector in the segment.
    pub(crate) start: usize,
    /// Offset after its last sector.
    pub(crate) end: usize,
}

/// Why there is no intact batch at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A sector was never written.
    Blank,
    /// A sector is neither intact nor blank, or belongs elsewhere.
    Bad,
    /// All sectors are intact, but what they say does not fit together.
    Inconsistent,
}

/// Reads the batch that begins at `slot` of a segment's bytes, which end at a block's end.
pub(crate) fn find(bytes: &[u8], salt: Salt, slot: usize) -> Result<Found, Flaw> {
    let lead = if slot == 0 { BLOCK } else { 0 };
    let start = slot + lead;
    if start >= bytes.len() {
        return Err(Flaw::Blank);
    }
    let batch = match Sector::at(bytes, start, salt) {
        Sector::Intact { batch, position } if position as usize == lead / SECTOR => batch,
        Sector::Blank { .. } => return Err(Flaw::Blank),
        _ => return Err(Flaw::Bad),
    };
    let head = Head::of_first(&bytes[start..]).ok_or(Flaw::Inconsistent)?;
    let end = start + head.sectors as usize * SECTOR;
    if head.batch != batch || head.wal_id != salt.wal_id || end > bytes.len() {
        return Err(Flaw::Inconsistent);
    }
    let mut flaw = None;
    for (number, offset) in (start..end).step_by(SECTOR).enumerate() {
        let expected = Sector::Intact { batch, position: (lead / SECTOR + number) as u32 };
        match Sector::at(bytes, offset, salt) {
            sector if sector == expected => {}
            Sector::Blank { .. } => flaw = flaw.or(Some(Flaw::Blank)),
            _ => flaw = Some(Flaw::Bad),
        }
    }
    if let Some(flaw) = flaw {
        return Err(flaw);
    }
    let rows = check(&bytes[start..end], &head).ok_or(Flaw::Inconsistent)?;
    Ok(Found { head, rows, start, end })
}

/// Checks a batch whose sectors are intact: both tables, the hash, every payload.
fn check(sectors: &[u8], head: &Head) -> Option<Vec<Row>> {
    let table_bytes = ROW * head.count as usize;
    let mut table = vec![0; table_bytes];
    gather(sectors, HEAD, &mut table);
    let end = head.sectors as usize * CONTENT;
    let mut trailer = vec![0; table_bytes + HEAD];
    gather(sectors, end - trailer.len(), &mut trailer);
    let (again, trailer_head) = trailer.split_at(table_bytes);
    if again != table
        || Head::decode(trailer_head, TRAILER_MAGIC).as_ref() != Some(head)
        || head.hash(&table) != head.hash
    {
        return None;
    }
    let rows: Vec<Row> = table.chunks_exact(ROW).map(Row::decode).collect();
    let payload_bytes: u64 = rows.iter().map(|row| u64::from(row.len)).sum();
    if payload_bytes != head.payload_bytes {
        return None;
    }
    let mut at = head.front_bytes();
    let mut payload = Vec::new();
    for (row, index) in rows.iter().zip(head.first_index..) {
        payload.resize(row.len as usize, 0);
        gather(sectors, at, &mut payload);
        at += payload.len();
        let id = EntryId { term: row.term, index };
        if record_checksum(id, row.kind, &payload) != row.checksum {
            return None;
        }
    }
    Some(rows)
}

/// The entries of these kinds in a batch found in `bytes`, which checked their payloads.
pub(crate) fn records_of<'a>(
    bytes: &'a [u8],
    found: &'a Found,
    kinds: &'a [u8],
) -> impl Iterator<Item = Record> + 'a {
    let sectors = &bytes[found.start..found.end];
    let mut at = found.head.front_bytes();
    found.rows.iter().zip(found.head.first_index..).filter_map(move |(row, index)| {
        let start = at;
        at += row.len as usize;
        kinds.contains(&row.kind).then(|| {
            let mut payload = BytesMut::zeroed(row.len as usize);
            gather(sectors, start, &mut payload);
            let id = EntryId { term: row.term, index };
            Record { id, kind: row.kind, payload: payload.freeze() }
        })
    })
}

/// The head and table of a batch, from its first sectors, checked against each other.
pub(crate) fn front(sectors: &[u8]) -> Option<(Head, Vec<Row>)> {
    let head = Head::of_first(sectors)?;
    if head.front_bytes() > sectors.len() / SECTOR * CONTENT {
        return None;
    }
    let mut table = vec![0; ROW * head.count as usize];
    gather(sectors, HEAD, &mut table);
    (head.hash(&table) == head.hash)
        .then(|| (head, table.chunks_exact(ROW).map(Row::decode).collect()))
}

/// Takes the payloads of `rows`, joined, out of sectors in a row, and checks each.
///
/// `at` is where the first payload begins in the sectors' joined contents, `index` the first
/// row's. Fails with the index of the first payload that does not match its checksum.
pub(crate) fn payloads(
    sectors: &[u8],
    at: usize,
    rows: &[Row],
    index: u64,
) -> Result<Vec<Record>, u64> {
    let len: usize = rows.iter().map(|row| row.len as usize).sum();
    let mut joined = BytesMut::zeroed(len);
    gather(sectors, at, &mut joined);
    let mut joined: Bytes = joined.freeze();
    let mut records = Vec::with_capacity(rows.len());
    for (row, index) in rows.iter().zip(index..) {
        let payload = joined.split_to(row.len as usize);
        let id = EntryId { term: row.term, index };
        if record_checksum(id, row.kind, &payload) != row.checksum {
            return Err(index);
        }
        records.push(Record { id, kind: row.kind, payload });
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: u64, len: usize) -> Vec<Record> {
        (1..=count)
            .map(|index| Record {
                id: EntryId { term: 1, index },
                kind: 1,
                payload: Bytes::from(vec![index as u8; len]),
            })
            .collect()
    }

    #[test]
    fn a_batch_is_found_as_it_was_written() {
        let salt = Salt { wal_id: 5, segment: 1 };
        for (count, len) in [(0, 0), (1, 0), (1, 280), (20, 0), (40, 1), (3, 5000), (500, 17)] {
            for slot in [0, BLOCK] {
                let records = records(count, len);
                let sectors = sectors_for(records.len(), count * len as u64).unwrap();
                let previous = Chain::start(5);
                let hard_state = HardState { term: 1, vote: 2 };
                let draft = Draft { previous, hard_state, commit: 3, records: &records, sectors };
                let mut buffer = BlockBuffer::default();
                let chain = draft.encode(salt, slot as u64, 1 << 20, &mut buffer);
                // A buffer that held other bytes before.
                let mut used = BlockBuffer::zeroed(buffer.len());
                used.fill(0xa5);
                draft.encode(salt, slot as u64, 1 << 20, &mut used);
                assert!(*used == *buffer, "what was there before shows");
                let mut segment = vec![0; slot];
                segment.extend_from_slice(&buffer);
                let found = find(&segment, salt, slot).unwrap();
                assert_eq!(found.end, segment.len());
                assert_eq!(found.head.previous(), previous);
                assert_eq!(found.head.hash, chain.hash);
                assert_eq!(found.rows.len() as u64, count);
                let at = found.head.front_bytes();
                let back = payloads(&segment[found.start..], at, &found.rows, 1).unwrap();
                assert_eq!(back, records);
                assert_eq!(front(&segment[found.start..]).unwrap().1, found.rows);
                let last = &segment[found.end - SECTOR..];
                assert_eq!(Head::of_trailer(last), Some(found.head));
            }
        }
    }

    #[test]
    fn head_and_trailer_never_share_a_sector() {
        for count in 0..2000 {
            for payload in [0, 1, 100, 491, 492, 493, 4000] {
                let sectors = sectors_for(count, payload).unwrap() as usize;
                let front = HEAD + ROW * count;
                assert_eq!(sectors % BLOCK_SECTORS, 0);
                assert!(2 * front + payload as usize <= sectors * CONTENT);
                assert!((sectors * CONTENT - front) / CONTENT > (front - 1) / CONTENT);
            }
        }
        assert_eq!(sectors_for(1, u64::MAX), None);
    }
}
