//! bpf(2) with nothing around it: what the others are measured against.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Key, Value};

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const MAP_LOOKUP_BATCH: libc::c_long = 24;

#[repr(C)]
struct Elem {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

fn elem(fd: BorrowedFd<'_>, command: libc::c_long, key: u64, value: u64) -> bool {
    let mut attr = Elem { map_fd: fd.as_raw_fd().cast_unsigned(), pad: 0, key, value, flags: 0 };
    // SAFETY: key and value point to live objects of the map's sizes (the callers below take `Key` and `Value`).
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<Elem>()) == 0 }
}

pub fn lookup(fd: BorrowedFd<'_>, key: &Key, value: &mut Value) -> bool {
    elem(fd, MAP_LOOKUP_ELEM, key.as_ptr() as u64, value.as_mut_ptr() as u64)
}

pub fn update(fd: BorrowedFd<'_>, key: &Key, value: &Value) -> bool {
    elem(fd, MAP_UPDATE_ELEM, key.as_ptr() as u64, value.as_ptr() as u64)
}

pub fn delete(fd: BorrowedFd<'_>, key: &Key) -> bool {
    elem(fd, MAP_DELETE_ELEM, key.as_ptr() as u64, 0)
}

/// Walks the map key by key, looks each up and returns how many there were.
pub fn iterate(fd: BorrowedFd<'_>, mut visit: impl FnMut(&Key, &Value)) -> usize {
    let (mut next, mut value) = (Key::default(), Value::default());
    let mut key;
    let (mut previous, mut count) = (0, 0);
    while elem(fd, MAP_GET_NEXT_KEY, previous, next.as_mut_ptr() as u64) {
        key = next;
        previous = key.as_ptr() as u64;
        if lookup(fd, &key, &mut value) {
            visit(&key, &value);
            count += 1;
        }
    }
    count
}

/// Room for a batch.
pub struct Buffers {
    keys: Vec<Key>,
    values: Vec<Value>,
}

impl Buffers {
    pub fn new(entries: usize) -> Self {
        Self { keys: vec![Key::default(); entries], values: vec![Value::default(); entries] }
    }
}

/// Reads the whole map in batches, which must be larger than any hash bucket.
pub fn batches(fd: BorrowedFd<'_>, buffers: &mut Buffers, mut visit: impl FnMut(&Key, &Value)) -> usize {
    let (mut cursor, mut started, mut total) = (0u32, false, 0);
    loop {
        let mut attr = BatchAttr {
            in_batch: if started { &raw const cursor as u64 } else { 0 },
            out_batch: &raw mut cursor as u64,
            keys: buffers.keys.as_mut_ptr() as u64,
            values: buffers.values.as_mut_ptr() as u64,
            count: buffers.keys.len() as u32,
            map_fd: fd.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have room for `count` entries of this map; a hash map's cursor has 4 bytes.
        let ret = unsafe { libc::syscall(libc::SYS_bpf, MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>()) };
        let error = io::Error::last_os_error();
        let count = attr.count as usize;
        for (key, value) in buffers.keys[..count].iter().zip(&buffers.values) {
            visit(key, value);
        }
        total += count;
        match (ret, error.raw_os_error()) {
            (0, _) => started = true,
            (_, Some(libc::ENOENT)) => return total,
            _ => panic!("batch lookup: {error}"),
        }
    }
}
