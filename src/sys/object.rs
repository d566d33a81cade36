//! What libbpf-rs does not expose of an object that is open but not loaded.

use std::io;
use std::ptr;

use libbpf_rs::btf::Btf;
use libbpf_rs::{AsRawLibbpf, Object, OpenMapMut, OpenObject};
use libbpf_sys as raw;

use super::prog::check;

/// The object's type information, with the offsets of its variables filled in; nothing when it carries none.
pub(crate) fn btf(object: &OpenObject) -> io::Result<Option<Btf<'_>>> {
    // SAFETY: the pointer is valid for as long as `object`, and so for the borrow that the result carries.
    let raw = unsafe { object.as_libbpf_object().as_ref() };
    Btf::from_bpf_object(raw).map_err(|error| io::Error::other(error.to_string()))
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
