//! Runs a loaded program at user space's call: on a packet without any device, or, where it is made for that, on an argument
//! (`BPF_PROG_TEST_RUN`, Linux 4.12; the context since 5.2; programs of the type `syscall` since 5.14).

use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::Program;
use crate::sys::prog::{self, TestInput};
use crate::{Error, Result};

/// How far a program may lengthen a packet: the kernel's `SKB_MAX_ALLOC`, with pages of 4 KiB.
const GROWTH: usize = 16 * 1024;

/// The kernel wants a whole Ethernet header.
const MIN_PACKET: usize = 14;

/// `struct __sk_buff` (include/uapi/linux/bpf.h): what a program sees beside the packet.
///
/// As input of a test run the kernel takes `mark`, `priority`, `ingress_ifindex`, `ifindex`, `cb`, `tstamp`,
/// `wire_len`, `gso_segs`, `gso_size` and `hwtstamp`, and refuses any other field that is not 0 (net/bpf/test_run.c,
/// `convert___skb_to_skb`). A device is looked up in the calling thread's namespace; without one the packet belongs to
/// the loopback device. A VLAN tag is given as part of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
#[allow(missing_docs)]
pub struct SkBuff {
    pub len: u32,
    pub pkt_type: u32,
    pub mark: u32,
    pub queue_mapping: u32,
    pub protocol: u32,
    pub vlan_present: u32,
    pub vlan_tci: u32,
    pub vlan_proto: u32,
    pub priority: u32,
    pub ingress_ifindex: u32,
    pub ifindex: u32,
    pub tc_index: u32,
    pub cb: [u32; 5],
    pub hash: u32,
    pub tc_classid: u32,
    pub data: u32,
    pub data_end: u32,
    pub napi_id: u32,
    pub family: u32,
    pub remote_ip4: u32,
    pub local_ip4: u32,
    pub remote_ip6: [u32; 4],
    pub local_ip6: [u32; 4],
    pub remote_port: u32,
    pub local_port: u32,
    pub data_meta: u32,
    pub flow_keys: u64,
    pub tstamp: u64,
    pub wire_len: u32,
    pub gso_segs: u32,
    pub sk: u64,
    pub gso_size: u32,
    pub tstamp_type: u32,
    pub hwtstamp: u64,
}

const _: () = assert!(size_of::<SkBuff>() == 192 && std::mem::offset_of!(SkBuff, tstamp) == 152);

/// The outcome of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The program's return value, for tc programs a `TC_ACT_…`.
    pub retval: u32,
    /// The packet as the last repetition left it.
    pub data: Vec<u8>,
    /// The mean duration of one repetition by the kernel's clock.
    pub duration: Duration,
}

/// Runs a tc program on a packet that starts with its Ethernet header.
///
/// Redirects are decided but not carried out, and their target is not reported. With `repeat` above 1 each repetition
/// gets the packet as the one before left it.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the packet is shorter than an Ethernet header,
/// `repeat` is 0 or above 2^31 - 1, or the context sets a field that the kernel does not take; `NotFound` for a device
/// that does not exist.
pub fn test_run(program: &Program, packet: &[u8], context: &SkBuff, repeat: u32) -> Result<TestRun> {
    if packet.len() < MIN_PACKET {
        return Err(Error::invalid("packet", format!("{} bytes", packet.len()), "shorter than an Ethernet header"));
    }
    if repeat == 0 || i32::try_from(repeat).is_err() {
        return Err(Error::invalid("repeat", repeat.to_string(), "must be from 1 to 2147483647"));
    }
    let mut data = vec![0; packet.len() + GROWTH];
    let input = TestInput { data: packet, context: bytemuck::bytes_of(context), repeat };
    let output = prog::test_run(program.fd(), &input, &mut data)
        .map_err(|error| Error::system("test-run program", program.name(), error))?;
    data.truncate(output.data_len);
    Ok(TestRun { retval: output.retval, data, duration: Duration::from_nanos(output.duration_ns.into()) })
}

/// Runs a program of the type `syscall` on its argument, which it may change, and returns the program's value.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the program is of another type or takes a longer argument.
pub fn call<T: Pod>(program: &Program, argument: &mut T) -> Result<u32> {
    prog::call(program.fd(), bytemuck::bytes_of_mut(argument))
        .map_err(|error| Error::system("call program", program.name(), error))
}
