//! bpf(2) commands on programs, and making pins of any kind.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use libbpf_sys as raw;

/// More maps than any program of ours refers to; the verifier's own limit is 64.
const MAX_MAPS: usize = 64;

/// What the kernel says about a loaded program.
#[derive(Clone, Debug)]
pub(crate) struct ProgInfo {
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    /// At most 15 bytes: the kernel cuts longer names.
    pub(crate) name: String,
    pub(crate) map_ids: Vec<u32>,
}

/// The input of a test run; the kernel keeps nothing of it.
pub(crate) struct TestInput<'a> {
    pub(crate) data: &'a [u8],
    /// A `struct __sk_buff` in bytes, or empty.
    pub(crate) context: &'a [u8],
    pub(crate) repeat: u32,
}

/// What a test run gave; the output's length, and the mean duration of one run.
pub(crate) struct TestOutput {
    pub(crate) retval: u32,
    pub(crate) data_len: usize,
    pub(crate) duration_ns: u32,
}

pub(crate) fn info(prog: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    let mut map_ids = [0u32; MAX_MAPS];
    // SAFETY: every field of bpf_prog_info is an integer or an array of integers, for which zero is valid.
    let mut info: raw::bpf_prog_info = unsafe { zeroed() };
    info.nr_map_ids = MAX_MAPS as u32;
    info.map_ids = map_ids.as_mut_ptr() as u64;
    let mut len = size_of::<raw::bpf_prog_info>() as u32;
    // SAFETY: `info` is writable for `len` bytes, and the only buffer it names holds `nr_map_ids` ids.
    check(unsafe { raw::bpf_prog_get_info_by_fd(prog.as_raw_fd(), &mut info, &mut len) })?;
    let maps = (info.nr_map_ids as usize).min(MAX_MAPS);
    Ok(ProgInfo { id: info.id, tag: info.tag, name: text(&info.name), map_ids: map_ids[..maps].to_vec() })
}

/// A descriptor of the program with this id; needs CAP_SYS_ADMIN.
pub(crate) fn by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; the result is checked before it is taken for a descriptor.
    owned(unsafe { raw::bpf_prog_get_fd_by_id(id) })
}

/// Runs a program on a packet. `out` receives the packet as the program left it; ENOSPC when it is too small.
pub(crate) fn test_run(prog: BorrowedFd<'_>, input: &TestInput<'_>, out: &mut [u8]) -> io::Result<TestOutput> {
    let repeat = c_int::try_from(input.repeat).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        data_in: input.data.as_ptr().cast(),
        data_size_in: input.data.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: if input.context.is_empty() { ptr::null() } else { input.context.as_ptr().cast() },
        ctx_size_in: input.context.len() as u32,
        repeat,
        ..Default::default()
    };
    // SAFETY: every pointer in `opts` is valid for the length beside it until the call returns.
    check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) })?;
    Ok(TestOutput { retval: opts.retval, data_len: opts.data_size_out as usize, duration_ns: opts.duration })
}

/// Runs a program of the type `syscall` on its argument, which it may change, and returns its value.
pub(crate) fn call(prog: BorrowedFd<'_>, argument: &mut [u8]) -> io::Result<u32> {
    let mut opts = raw::bpf_test_run_opts {
        sz: size_of::<raw::bpf_test_run_opts>() as raw::size_t,
        ctx_in: argument.as_mut_ptr().cast_const().cast(),
        ctx_size_in: argument.len() as u32,
        ..Default::default()
    };
    // SAFETY: the kernel reads and writes the context of such a program within `ctx_size_in` bytes, which are borrowed for writing.
    check(unsafe { raw::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) })?;
    Ok(opts.retval)
}

/// Pins a program, map or link at `path`, which must not exist.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` is a terminated string.
    check(unsafe { raw::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
}

/// Turns libbpf's convention (negative errno) into a result.
pub(super) fn check(ret: c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(()) }
}

/// The same for calls that return a new descriptor.
pub(super) fn owned(ret: c_int) -> io::Result<OwnedFd> {
    check(ret)?;
    // SAFETY: the call succeeded, so this is a descriptor that was just opened and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(ret) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn text(name: &[c_char; 16]) -> String {
    let bytes = name.map(|c| c as u8);
    CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
