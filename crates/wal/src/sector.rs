//! Sectors: every 512 bytes of a segment check themselves.
//!
//! A disk writes sectors whole, in any order, or not at all. Because each written sector carries a
//! mark, its batch, its place and a checksum, recovery can tell for each one whether it was
//! written (and is intact), was never written (zeros), or has rotted. A payload of zeros makes no
//! sector of zeros, which is what lets zeros mean "never written".

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// Batches start and end at multiples of this: what was acknowledged is never written again, not
/// even by a device whose real sectors are this large.
pub(crate) const BLOCK: usize = 4096;
/// Sectors in a block.
pub(crate) const BLOCK_SECTORS: usize = BLOCK / SECTOR;
/// Bytes of a sector's frame: CRC, mark, batch, position.
pub(crate) const FRAME: usize = 20;
/// Bytes of content in a sector.
pub(crate) const CONTENT: usize = SECTOR - FRAME;

/// First format of segments: "RKW1".
const MARK: u32 = u32::from_le_bytes(*b"RKW1");
/// A sector with at most so many bits set was never written, and has rotted since: the mark alone
/// sets fifteen bits.
const BLANK_BITS_MAX: u32 = 4;

/// Goes into every sector's checksum, so that a sector of another log, segment or offset (a
/// misdirected write, a copied file) is never taken for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt {
    pub(crate) wal_id: u64,
    pub(crate) segment: u64,
}

/// What 512 bytes turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Never written. `rotted` if a few bits are set nevertheless.
    Blank { rotted: bool },
    /// Written and intact: sector `position` of what was written for `batch`.
    Intact { batch: u64, position: u32 },
    /// Neither.
    Bad,
}

impl Sector {
    /// Judges the sector that begins at `offset` of the segment's bytes.
    pub(crate) fn at(bytes: &[u8], offset: usize, salt: Salt) -> Sector {
        Sector::judge(&bytes[offset..offset + SECTOR], offset as u64, salt)
    }

    /// Judges 512 bytes read from `offset` of a segment.
    pub(crate) fn judge(sector: &[u8], offset: u64, salt: Salt) -> Sector {
        if word32(sector, 4) == MARK && word32(sector, 0) == checksum(sector, offset, salt) {
            return Sector::Intact { batch: word64(sector, 8), position: word32(sector, 16) };
        }
        let mut bits = 0;
        for word in sector.chunks_exact(8) {
            bits += word64(word, 0).count_ones();
            if bits > BLANK_BITS_MAX {
                return Sector::Bad;
            }
        }
        Sector::Blank { rotted: bits > 0 }
    }
}

/// Completes a sector whose content is in place: fills in its frame.
pub(crate) fn seal(sector: &mut [u8], offset: u64, salt: Salt, batch: u64, position: u32) {
    sector[4..8].copy_from_slice(&MARK.to_le_bytes());
    sector[8..16].copy_from_slice(&batch.to_le_bytes());
    sector[16..20].copy_from_slice(&position.to_le_bytes());
    let checksum = checksum(sector, offset, salt);
    sector[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The content of a sector.
pub(crate) fn content(sector: &[u8]) -> &[u8] {
    &sector[FRAME..SECTOR]
}

fn checksum(sector: &[u8], offset: u64, salt: Salt) -> u32 {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&salt.wal_id.to_le_bytes());
    place[8..16].copy_from_slice(&salt.segment.to_le_bytes());
    place[16..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), &sector[4..])
}

/// The little-endian number at `at`.
pub(crate) fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `at`.
pub(crate) fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Copies `into.len()` bytes of content from sectors in a row, starting at byte `at` of their
/// joined contents.
pub(crate) fn gather(sectors: &[u8], at: usize, into: &mut [u8]) {
    let mut at = at;
    let mut done = 0;
    while done < into.len() {
        let inside = at % CONTENT;
        let from = at / CONTENT * SECTOR + FRAME + inside;
        let len = (CONTENT - inside).min(into.len() - done);
        into[done..done + len].copy_from_slice(&sectors[from..from + len]);
        at += len;
        done += len;
    }
}

/// The inverse of [`gather`]: spreads `from` over the contents of sectors in a row.
pub(crate) fn scatter(sectors: &mut [u8], at: usize, from: &[u8]) {
    let mut at = at;
    let mut done = 0;
    while done < from.len() {
        let inside = at % CONTENT;
        let to = at / CONTENT * SECTOR + FRAME + inside;
        let len = (CONTENT - inside).min(from.len() - done);
        sectors[to..to + len].copy_from_slice(&from[done..done + len]);
        at += len;
        done += len;
    }
}

/// Fills the joined contents of sectors in a row with zeros, from byte `from` to byte `to`.
pub(crate) fn scatter_zeros(sectors: &mut [u8], from: usize, to: usize) {
    let mut at = from;
    while at < to {
        let inside = at % CONTENT;
        let start = at / CONTENT * SECTOR + FRAME + inside;
        let len = (CONTENT - inside).min(to - at);
        sectors[start..start + len].fill(0);
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = Salt { wal_id: 7, segment: 3 };

    fn sealed() -> Vec<u8> {
        let mut sector = vec![0; SECTOR];
        scatter(&mut sector, 0, b"content");
        seal(&mut sector, 1024, SALT, 9, 2);
        sector
    }

    #[test]
    fn every_flipped_bit_of_a_sector_is_bad() {
        let sector = sealed();
        let intact = Sector::Intact { batch: 9, position: 2 };
        assert_eq!(Sector::judge(&sector, 1024, SALT), intact);
        for bit in 0..SECTOR * 8 {
            let mut rotten = sector.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sector::judge(&rotten, 1024, SALT), Sector::Bad, "bit {bit}");
        }
    }

    #[test]
    fn a_sector_elsewhere_is_bad() {
        let sector = sealed();
        assert_eq!(Sector::judge(&sector, 512, SALT), Sector::Bad);
        assert_eq!(Sector::judge(&sector, 1024, Salt { segment: 4, ..SALT }), Sector::Bad);
        assert_eq!(Sector::judge(&sector, 1024, Salt { wal_id: 8, ..SALT }), Sector::Bad);
    }

    #[test]
    fn zeros_are_blank_even_with_a_flipped_bit() {
        let mut sector = vec![0; SECTOR];
        assert_eq!(Sector::judge(&sector, 0, SALT), Sector::Blank { rotted: false });
        sector[100] = 4;
        assert_eq!(Sector::judge(&sector, 0, SALT), Sector::Blank { rotted: true });
        sector[200] = 0xff;
        assert_eq!(Sector::judge(&sector, 0, SALT), Sector::Bad);
    }

    #[test]
    fn scattered_bytes_are_gathered() {
        let bytes: Vec<u8> = (0..2000u32).map(|byte| byte as u8).collect();
        let mut sectors = vec![0; 6 * SECTOR];
        scatter(&mut sectors, 300, &bytes);
        let mut back = vec![0; bytes.len()];
        gather(&sectors, 300, &mut back);
        assert_eq!(bytes, back);
    }
}
