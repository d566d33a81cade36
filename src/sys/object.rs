//! What libbpf-rs does not expose of an object that is open but not loaded.

use std::io;
use std::ptr;
use std::slice;

use libbpf_rs::btf::Btf;
use libbpf_rs::{AsRawLibbpf, Object, OpenMap, OpenMapMut, OpenObject};
use libbpf_sys as raw;

use super::prog::check;

/// The object's type information, with the offsets of its variables filled in; nothing when it carries none.
pub(crate) fn btf(object: &OpenObject) -> io::Result<Option<Btf<'_>>> {
    // SAFETY: the pointer is valid for as long as `object`, and so for the borrow that the result carries.
    let raw = unsafe { object.as_libbpf_object().as_ref() };
    Btf::from_bpf_object(raw).map_err(|error| io::Error::other(error.to_string()))
}

/// The same as bytes, in the format of the kernel; empty when the object carries none.
pub(crate) fn btf_bytes(object: &OpenObject) -> Vec<u8> {
    // SAFETY: the object is open and borrowed.
    let btf = unsafe { raw::bpf_object__btf(object.as_libbpf_object().as_ptr()) };
    let mut len = 0;
    // SAFETY: libbpf takes a null pointer for an object without type information, and returns null then.
    let bytes = if btf.is_null() { ptr::null() } else { unsafe { raw::btf__raw_data(btf, &mut len) } };
    if bytes.is_null() {
        return Vec::new();
    }
    // SAFETY: libbpf keeps `len` bytes there for as long as the object lives, and they are copied at once.
    unsafe { slice::from_raw_parts(bytes.cast::<u8>(), len as usize) }.to_vec()
}

/// The ids of the types of a map's key and value, 0 where they are not declared.
pub(crate) fn map_types(map: &OpenMap<'_>) -> (u32, u32) {
    let map = map.as_libbpf_object().as_ptr();
    // SAFETY: `map` belongs to an open object that is borrowed.
    unsafe { (raw::bpf_map__btf_key_type_id(map), raw::bpf_map__btf_value_type_id(map)) }
}

/// Takes the object's wish to be pinned by name off a map: true when it had one.
///
/// Without it libbpf neither looks for a pin nor makes one, so that both can be done with better errors.
pub(crate) fn take_pin_by_name(map: &mut OpenMapMut<'_>) -> io::Result<bool> {
    let map = map.as_libbpf_object().as_ptr();
    // SAFETY: `map` belongs to an open object that is borrowed mutably.
    let pinned = !unsafe { raw::bpf_map__pin_path(map) }.is_null();
    if pinned {
        // SAFETY: as above; a null path clears it.
        check(unsafe { raw::bpf_map__set_pin_path(map, ptr::null()) })?;
    }
    Ok(pinned)
}

/// Loads an object; unlike libbpf-rs it keeps the errno.
pub(crate) fn load(object: OpenObject) -> io::Result<Object> {
    // SAFETY: the object is open, owned by the caller and not loaded yet.
    check(unsafe { raw::bpf_object__load(object.as_libbpf_object().as_ptr()) })?;
    // SAFETY: it was loaded by the line above, and `take_ptr` gives up its ownership.
    Ok(unsafe { Object::from_ptr(object.take_ptr()) })
}
