//! Looking at a log without changing it, damaged or not.

use std::io;
use std::path::Path;

use crate::EntryId;
use crate::batch::{self, Chain, Found, SegmentHeader};
use crate::disk::{Disk, DiskFile};
use crate::file_disk::FileDisk;
use crate::meta::{self, COPIES, Copy, Meta};
use crate::recovery::{Recovery, Survey};
use crate::sector::{BLOCK, SECTOR, Salt, Sector};
use crate::segment;

/// Prints META, segments, batches and entries of the log in `dir`, and what is damaged. Returns
/// whether [`Wal::open`](crate::Wal::open) would take it as it is, apart from what it puts right by
/// itself.
///
/// Opens files for reading only and takes no lock: of a running member it may see a batch half
/// written. Damage is printed, not returned; an error means that the directory or the output
/// failed.
pub fn inspect(dir: &Path, out: &mut impl io::Write) -> io::Result<bool> {
    inspect_disk(&FileDisk::open_read_only(dir)?, out)
}

fn inspect_disk<D: Disk>(disk: &D, out: &mut impl io::Write) -> io::Result<bool> {
    let mut names = disk.names()?;
    names.sort_unstable();
    let mut copies = Vec::new();
    for number in 0..COPIES {
        let copy = meta::read_copy(disk, number).unwrap_or(Copy::Damaged);
        print_copy(number, &copy, out)?;
        copies.push(copy);
    }
    let meta = meta::newest(&copies);
    for name in &names {
        let Some(number) = segment::number(name) else { continue };
        if let Err(error) = print_segment(disk, number, meta.as_ref().ok(), out) {
            writeln!(out, "{name}: DAMAGED: {error}")?;
        }
    }
    for name in names.iter().filter(|name| segment::is_temporary(name)) {
        writeln!(out, "{name}: being made, or left over from that")?;
    }
    let result = meta.and_then(|meta| Recovery::run(disk, meta, &names, &[]));
    match result {
        Ok(recovery) => {
            for warning in &recovery.warnings {
                writeln!(out, "note: {warning}")?;
            }
            writeln!(
                out,
                "sound: {} entries, last {}, term {} vote {:x}, committed at least to {}",
                recovery.entries.len(),
                recovery.chain.last,
                recovery.hard_state.term,
                recovery.hard_state.vote,
                recovery.commit
            )?;
            Ok(copies.iter().all(|copy| matches!(copy, Copy::Whole(_))))
        }
        Err(error) => {
            writeln!(out, "DAMAGED: {error}")?;
            Ok(false)
        }
    }
}

fn print_copy(number: usize, copy: &Copy, out: &mut impl io::Write) -> io::Result<()> {
    let name = Meta::name(number);
    match copy {
        Copy::Missing => writeln!(out, "{name}: MISSING"),
        Copy::Damaged => writeln!(out, "{name}: DAMAGED"),
        Copy::Version(version) => writeln!(out, "{name}: of a newer release, version {version}"),
        Copy::Whole(meta) => writeln!(
            out,
            "{name}: sequence {} cluster {:x} member {:x} log {:x} incarnation {} term {} vote {:x} \
             commit {} segments from {} to {}, synced at least to batch {} entry {}",
            meta.sequence,
            meta.identity.cluster,
            meta.identity.member,
            meta.wal_id,
            meta.incarnation,
            meta.hard_state.term,
            meta.hard_state.vote,
            meta.commit,
            meta.first_segment,
            meta.newest_segment,
            meta.synced.batch,
            meta.synced.last
        ),
    }
}

fn print_segment<D: Disk>(
    disk: &D,
    number: u64,
    meta: Option<&Meta>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let name = segment::name(number);
    let file = disk.open(&name)?;
    let len = file.len()?;
    let mut bytes = vec![0; len as usize / BLOCK * BLOCK];
    file.read_at(&mut bytes, 0)?;
    let header = SegmentHeader::find(&bytes).map(|(header, _)| header);
    let Some(wal_id) = meta.map(|meta| meta.wal_id).or(header.map(|header| header.salt.wal_id))
    else {
        return writeln!(out, "{name}: {len} bytes, neither META nor a header says of which log");
    };
    let salt = Salt { wal_id, segment: number };
    match header {
        Some(header) => writeln!(
            out,
            "{name}: {len} bytes, log {:x} segment {}, after batch {} entry {}",
            header.salt.wal_id, header.salt.segment, header.previous.batch, header.previous.last
        )?,
        None => writeln!(out, "{name}: {len} bytes, no intact header")?,
    }
    print_batches(&bytes, salt, header.map(|header| header.previous), &name, out)
}

/// Prints every batch that can be read, going on after those that cannot.
fn print_batches(
    bytes: &[u8],
    salt: Salt,
    previous: Option<Chain>,
    name: &str,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let mut chain = previous;
    let mut slot = 0;
    loop {
        match batch::find(bytes, salt, slot) {
            Ok(found) => {
                print_batch(&found, chain, out)?;
                slot = found.end;
                let last = found
                    .rows
                    .last()
                    .map(|row| EntryId { term: row.term, index: found.head.last_index() });
                let last = last.unwrap_or(found.head.previous_last);
                chain = Some(Chain { batch: found.head.batch, hash: found.head.hash, last });
            }
            Err(flaw) => {
                let expected = chain.map_or(1, |chain| chain.batch + 1);
                let survey = Survey::of(bytes, salt, slot, expected);
                if !survey.rotted.is_empty() {
                    let count = survey.rotted.len();
                    writeln!(out, "  {name} has flipped bits in {count} sectors never written")?;
                }
                if survey.is_blank() {
                    return writeln!(out, "  {} bytes left", bytes.len() - slot);
                }
                let at = survey.bad.unwrap_or(slot);
                writeln!(out, "  at {at}: DAMAGED OR TORN, batch {expected} expected: {flaw:?}")?;
                match resume(bytes, salt, slot) {
                    Some(next) => slot = next,
                    None => return Ok(()),
                }
                chain = None;
            }
        }
    }
}

/// The next place after `slot` where the first sector of a batch stands.
fn resume(bytes: &[u8], salt: Salt, slot: usize) -> Option<usize> {
    let blocks = (slot + BLOCK..bytes.len()).step_by(BLOCK).filter(|at| *at > BLOCK);
    let mut blocks = blocks.filter(|at| {
        matches!(Sector::at(bytes, *at, salt), Sector::Intact { position: 0, .. })
            && batch::Head::of_first(&bytes[*at..*at + SECTOR]).is_some()
    });
    blocks.next()
}

fn print_batch(found: &Found, chain: Option<Chain>, out: &mut impl io::Write) -> io::Result<()> {
    let head = &found.head;
    let broken = chain.is_some_and(|chain| chain != head.previous());
    writeln!(
        out,
        "  at {}: batch {} of {} bytes, {} entries, term {} vote {:x} commit {}{}",
        found.start,
        head.batch,
        found.end - found.start,
        head.count,
        head.hard_state.term,
        head.hard_state.vote,
        head.commit,
        if broken { ", DAMAGED: does not follow the batch before" } else { "" }
    )?;
    for (row, index) in found.rows.iter().zip(head.first_index..) {
        let id = EntryId { term: row.term, index };
        writeln!(out, "    {id} kind {} {} bytes", row.kind, row.len)?;
    }
    Ok(())
}
