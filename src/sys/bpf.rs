//! bpf(2) for maps: element operations, creation, pins and what the kernel knows of a map.
//!
//! Element operations go straight to the system call with the shortest attribute the command takes, so that a typed map
//! costs what the call costs. [`MapFd`] knows the sizes the kernel will read and write and checks every buffer against them,
//! which is what makes its methods safe.

use std::ffi::{CString, c_long};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use libbpf_sys as raw;

/// Attribute of the element commands (the first 32 bytes of `union bpf_attr`).
#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Attribute of the pin commands.
#[repr(C)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Attribute of `BPF_MAP_GET_FD_BY_ID` and its siblings.
#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Attribute of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Issues one bpf(2) command.
///
/// # Safety
///
/// Every address in `attr` must be valid for what the kernel reads and writes through it under `cmd`, and `A` must have the
/// layout of `union bpf_attr` for `cmd`.
#[inline]
pub(super) unsafe fn bpf<A>(cmd: raw::bpf_cmd, attr: &mut A) -> io::Result<c_long> {
    // SAFETY: the attribute is a live, exclusive object of the size given; the caller answers for the addresses in it.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, c_long::from(cmd), std::ptr::from_mut(attr), size_of::<A>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

#[inline]
pub(super) fn addr<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

#[inline]
pub(super) fn addr_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

#[inline]
pub(super) fn fd_bits(fd: RawFd) -> u32 {
    // Descriptors are never negative while owned or borrowed.
    fd.cast_unsigned()
}

/// What the kernel reports of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelInfo {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) name: String,
    pub(crate) btf_id: u32,
    pub(crate) btf_key_type_id: u32,
    pub(crate) btf_value_type_id: u32,
}

/// What a map is created with.
pub(crate) struct CreateArgs<'a> {
    pub(crate) kind: u32,
    pub(crate) name: &'a str,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    /// A map of the kind an outer map is to hold.
    pub(crate) inner: Option<BorrowedFd<'a>>,
    /// Loaded type information with the ids of the key's and the value's type.
    pub(crate) btf: Option<(BorrowedFd<'a>, u32, u32)>,
}

/// A map's descriptor with the sizes of what goes through it.
#[derive(Debug)]
pub(crate) struct MapFd {
    fd: OwnedFd,
    info: KernelInfo,
    /// Bytes that user space exchanges per value: all CPUs' for a per-CPU map.
    value_len: usize,
}

impl MapFd {
    /// Creates a map.
    pub(crate) fn create(args: &CreateArgs<'_>) -> io::Result<Self> {
        let name = CString::new(args.name)?;
        let mut opts = raw::bpf_map_create_opts { map_flags: args.flags, ..Default::default() };
        opts.sz = size_of::<raw::bpf_map_create_opts>() as raw::size_t;
        if let Some(inner) = args.inner {
            opts.inner_map_fd = fd_bits(inner.as_raw_fd());
        }
        if let Some((btf, key, value)) = args.btf {
            opts.btf_fd = fd_bits(btf.as_raw_fd());
            opts.btf_key_type_id = key;
            opts.btf_value_type_id = value;
        }
        // SAFETY: name and options outlive the call.
        let ret = unsafe {
            raw::bpf_map_create(
                args.kind,
                name.as_ptr(),
                args.key_size,
                args.value_size,
                args.max_entries,
                &raw const opts,
            )
        };
        if ret < 0 {
            return Err(io::Error::from_raw_os_error(-ret));
        }
        // SAFETY: the kernel just returned this descriptor; nobody else owns it.
        Self::from_owned(unsafe { OwnedFd::from_raw_fd(ret) })
    }

    /// Takes over a map's descriptor. Fails when it is something else.
    pub(crate) fn from_owned(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let value_len = value_len(&info)?;
        Ok(Self { fd, info, value_len })
    }

    /// The map with a kernel id.
    pub(crate) fn from_id(id: u32) -> io::Result<Self> {
        let mut attr = IdAttr { id, next_id: 0, open_flags: 0 };
        // SAFETY: the attribute holds no address.
        let fd = unsafe { bpf(raw::BPF_MAP_GET_FD_BY_ID, &mut attr)? };
        Self::from_owned(owned(fd)?)
    }

    pub(crate) fn info(&self) -> &KernelInfo {
        &self.info
    }

    pub(crate) fn key_len(&self) -> usize {
        self.info.key_size as usize
    }

    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }

    #[inline]
    fn check(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> io::Result<()> {
        let key_fits = key.is_none_or(|key| key.len() == self.key_len());
        let value_fits = value.is_none_or(|value| value.len() == self.value_len);
        if key_fits && value_fits { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    #[inline]
    fn elem(&self, key: u64, value: u64, flags: u64) -> ElemAttr {
        ElemAttr { map_fd: fd_bits(self.fd.as_raw_fd()), pad: 0, key, value, flags }
    }

    /// Copies a key's value out; false when the key is absent.
    #[inline]
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(Some(key), Some(value))?;
        let mut attr = self.elem(addr(key), addr_mut(value), 0);
        // SAFETY: both buffers have exactly the lengths the kernel uses for this map.
        found(unsafe { bpf(raw::BPF_MAP_LOOKUP_ELEM, &mut attr) })
    }

    /// Takes an entry out; false when the key is absent.
    pub(crate) fn lookup_and_delete(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(Some(key), Some(value))?;
        let mut attr = self.elem(addr(key), addr_mut(value), 0);
        // SAFETY: both buffers have exactly the lengths the kernel uses for this map.
        found(unsafe { bpf(raw::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) })
    }

    /// Writes an entry; `flags` is `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    #[inline]
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check(Some(key), Some(value))?;
        let mut attr = self.elem(addr(key), addr(value), flags);
        // SAFETY: both buffers have exactly the lengths the kernel uses for this map; it only reads them.
        unsafe { bpf(raw::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Removes an entry; false when the key is absent.
    #[inline]
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(Some(key), None)?;
        let mut attr = self.elem(addr(key), 0, 0);
        // SAFETY: the key has exactly the length the kernel reads.
        found(unsafe { bpf(raw::BPF_MAP_DELETE_ELEM, &mut attr) })
    }

    /// The key after `key`, or the first one; false at the end.
    #[inline]
    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        self.check(key, None)?;
        self.check(Some(next), None)?;
        let mut attr = self.elem(key.map_or(0, addr), addr_mut(next), 0);
        // SAFETY: both buffers have exactly the key's length.
        found(unsafe { bpf(raw::BPF_MAP_GET_NEXT_KEY, &mut attr) })
    }

    /// Pins the map at a path on a bpffs.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd: fd_bits(self.fd.as_raw_fd()), file_flags: 0 };
        // SAFETY: the path is a live C string.
        unsafe { bpf(raw::BPF_OBJ_PIN, &mut attr) }.map(drop)
    }
}

impl AsFd for MapFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens whatever is pinned at a path.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the path is a live C string.
    owned(unsafe { bpf(raw::BPF_OBJ_GET, &mut attr)? })
}

/// The raw BTF with a kernel id.
pub(crate) fn btf_bytes(id: u32) -> io::Result<Vec<u8>> {
    let mut attr = IdAttr { id, next_id: 0, open_flags: 0 };
    // SAFETY: the attribute holds no address.
    let fd = owned(unsafe { bpf(raw::BPF_BTF_GET_FD_BY_ID, &mut attr)? })?;
    let mut bytes = Vec::new();
    // The first call tells the size, the second fills the buffer.
    for _ in 0..2 {
        let mut info =
            raw::bpf_btf_info { btf: addr_mut(&mut bytes), btf_size: len_u32(&bytes)?, ..Default::default() };
        if bytes.is_empty() {
            info.btf = 0;
        }
        // SAFETY: the kernel writes at most `btf_size` bytes to `btf`, which has that many.
        unsafe { object_info(fd.as_fd(), &mut info)? };
        bytes.resize(info.btf_size as usize, 0);
    }
    Ok(bytes)
}

/// Loads type information into the kernel.
pub(crate) fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the blob is live for the call; no log is asked for.
    let ret = unsafe { raw::bpf_btf_load(bytes.as_ptr().cast(), bytes.len() as raw::size_t, std::ptr::null_mut()) };
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { owned(c_long::from(ret)) }
}

/// How many CPUs the kernel may ever bring up: the number of slots a per-CPU value has.
pub(crate) fn possible_cpus() -> io::Result<usize> {
    static CPUS: OnceLock<usize> = OnceLock::new();
    if let Some(cpus) = CPUS.get() {
        return Ok(*cpus);
    }
    // SAFETY: takes no arguments; libbpf guards its cache itself.
    let ret = unsafe { raw::libbpf_num_possible_cpus() };
    let cpus = usize::try_from(ret).map_err(|_| io::Error::from_raw_os_error(-ret))?;
    Ok(*CPUS.get_or_init(|| cpus))
}

/// Bytes from one CPU's value to the next's.
pub(crate) fn per_cpu_stride(value_size: usize) -> usize {
    value_size.next_multiple_of(8)
}

fn is_per_cpu(kind: u32) -> bool {
    matches!(
        kind,
        raw::BPF_MAP_TYPE_PERCPU_HASH
            | raw::BPF_MAP_TYPE_LRU_PERCPU_HASH
            | raw::BPF_MAP_TYPE_PERCPU_ARRAY
            | raw::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
    )
}

fn is_map_in_map(kind: u32) -> bool {
    matches!(kind, raw::BPF_MAP_TYPE_ARRAY_OF_MAPS | raw::BPF_MAP_TYPE_HASH_OF_MAPS)
}

/// The kernel's `bpf_map_value_size()`.
fn value_len(info: &KernelInfo) -> io::Result<usize> {
    if is_per_cpu(info.kind) {
        Ok(per_cpu_stride(info.value_size as usize) * possible_cpus()?)
    } else if is_map_in_map(info.kind) {
        Ok(size_of::<u32>())
    } else {
        Ok(info.value_size as usize)
    }
}

fn map_info(fd: BorrowedFd<'_>) -> io::Result<KernelInfo> {
    let mut info = raw::bpf_map_info::default();
    // SAFETY: a map's information holds no addresses that the kernel would write to.
    unsafe { object_info(fd, &mut info)? };
    let name: Vec<u8> = info.name.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).collect();
    Ok(KernelInfo {
        id: info.id,
        kind: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        name: String::from_utf8_lossy(&name).into_owned(),
        btf_id: info.btf_id,
        btf_key_type_id: info.btf_key_type_id,
        btf_value_type_id: info.btf_value_type_id,
    })
}

/// Fills an info struct from a descriptor.
///
/// # Safety
///
/// `I` must be the kernel's info struct for the object behind `fd`, and every address in it valid for its length.
unsafe fn object_info<I>(fd: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    let mut attr = InfoAttr {
        bpf_fd: fd_bits(fd.as_raw_fd()),
        info_len: u32::try_from(size_of::<I>()).unwrap_or(u32::MAX),
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to the struct; the caller answers for what is inside.
    unsafe { bpf(raw::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

fn len_u32(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[inline]
fn found(result: io::Result<c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
