//! The journal's bytes.
//!
//! ```text
//! file   = header frame*
//! header = "podwirej" version:u32
//! frame  = F5 50 4A FF  length:u32  crc:u32  payload[length]
//! ```
//!
//! Integers are little-endian. The checksum is CRC-32 (IEEE) over the length's four bytes and the payload. A payload is a line of JSON a record;
//! as JSON is UTF-8, in which F5 and FF never occur, a frame's mark can't be found inside a payload.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) const HEADER: [u8; 12] = *b"podwirej\x01\0\0\0";
const MARK: [u8; 4] = [0xf5, b'P', b'J', 0xff];
const PREFIX: usize = MARK.len() + 8;

/// The bytes of one frame that holds these records.
pub(super) fn encode<'a, R: Serialize + 'a>(records: impl IntoIterator<Item = &'a R>) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::from(MARK);
    bytes.resize(PREFIX, 0);
    for record in records {
        serde_json::to_writer(&mut bytes, record)?;
        bytes.push(b'\n');
    }
    let length = u32::try_from(bytes.len() - PREFIX).map_err(serde::ser::Error::custom)?.to_le_bytes();
    let checksum = checksum(&length, &bytes[PREFIX..]);
    bytes[4..8].copy_from_slice(&length);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// The payload of the frame at the beginning of `bytes`, if a whole one is there.
pub(super) fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (mark, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (*mark == MARK && checksum(length, payload) == u32::from_le_bytes(*crc)).then_some(payload)
}

/// The bytes that a frame with this payload takes.
pub(super) fn frame_len(payload: &[u8]) -> usize {
    PREFIX + payload.len()
}

/// Whether a whole frame begins anywhere in `bytes`.
pub(super) fn contains_frame(bytes: &[u8]) -> bool {
    let marks = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    marks.into_iter().any(|(at, _)| payload(&bytes[at..]).is_some())
}

pub(super) fn decode<R: DeserializeOwned>(payload: &[u8]) -> serde_json::Result<Vec<R>> {
    let lines = payload.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice).collect()
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}
