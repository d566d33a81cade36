//! Links between programs and a device's tcx hooks (Linux 6.6). Devices are looked up in the calling thread's
//! namespace.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libbpf_sys as raw;

use super::prog::{check, owned};

/// `BPF_TCX_INGRESS` of `enum bpf_attach_type`.
pub(crate) const INGRESS: u32 = raw::BPF_TCX_INGRESS;
/// `BPF_TCX_EGRESS` of `enum bpf_attach_type`.
pub(crate) const EGRESS: u32 = raw::BPF_TCX_EGRESS;

/// The kernel lets at most 64 programs share a hook (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// What the kernel says about a tcx link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    /// 0 once the device is gone: the link is defunct.
    pub(crate) ifindex: u32,
    pub(crate) attach_type: u32,
}

/// A program on a hook; `link_id` is 0 for one attached without a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) prog_id: u32,
    pub(crate) link_id: u32,
}

/// Attaches after every program that is there; gone when the descriptor and every pin are.
pub(crate) fn create(prog: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no options; the result is checked before it is taken for a descriptor.
    owned(unsafe { raw::bpf_link_create(prog.as_raw_fd(), ifindex as i32, attach_type, ptr::null()) })
}

/// Replaces a link's program; no packet passes in between unseen.
pub(crate) fn update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no options.
    check(unsafe { raw::bpf_link_update(link.as_raw_fd(), prog.as_raw_fd(), ptr::null()) })
}

/// Takes the program off its hook, whoever else holds the link.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { raw::bpf_link_detach(link.as_raw_fd()) })
}

/// Nothing when the link is of another kind.
pub(crate) fn info(link: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    // SAFETY: bpf_link_info is integers and unions of integers, for which zero is valid.
    let mut info: raw::bpf_link_info = unsafe { zeroed() };
    let mut len = size_of::<raw::bpf_link_info>() as u32;
    // SAFETY: `info` is writable for `len` bytes and names no buffer.
    check(unsafe { raw::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut len) })?;
    if info.type_ != raw::BPF_LINK_TYPE_TCX {
        return Ok(None);
    }
    // SAFETY: the kernel filled the union's tcx member, as the type says.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    Ok(Some(LinkInfo { id: info.id, prog_id: info.prog_id, ifindex: tcx.ifindex, attach_type: tcx.attach_type }))
}

/// Every program on a hook, in the order in which they run. EINVAL where the kernel has no tcx.
pub(crate) fn query(ifindex: u32, attach_type: u32) -> io::Result<Vec<Entry>> {
    let mut prog_ids = [0u32; MAX_PROGRAMS];
    let mut link_ids = [0u32; MAX_PROGRAMS];
    let mut opts = raw::bpf_prog_query_opts {
        sz: size_of::<raw::bpf_prog_query_opts>() as raw::size_t,
        prog_ids: prog_ids.as_mut_ptr(),
        link_ids: link_ids.as_mut_ptr(),
        ..Default::default()
    };
    opts.__bindgen_anon_1.count = MAX_PROGRAMS as u32;
    // SAFETY: both arrays hold `count` ids and outlive the call.
    check(unsafe { raw::bpf_prog_query_opts(ifindex as i32, attach_type, &mut opts) })?;
    // SAFETY: both members of the union are the same u32, which the kernel set.
    let count = unsafe { opts.__bindgen_anon_1.count } as usize;
    let entries = prog_ids.iter().zip(link_ids).take(count);
    Ok(entries.map(|(&prog_id, link_id)| Entry { prog_id, link_id }).collect())
}
