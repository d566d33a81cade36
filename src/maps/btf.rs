//! The little of BTF that maps need: reading a struct's fields, and describing a key and a value for a new map.
//!
//! Format: the kernel's `Documentation/bpf/btf.rst`.

use std::os::fd::OwnedFd;

use super::kind::MapType;
use super::spec::{MapSpec, StructLayout};
use crate::sys::bpf;

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// How deep typedefs, qualifiers, arrays and anonymous members are followed.
const MAX_DEPTH: usize = 32;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Parsed type information.
pub(crate) struct Btf<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

struct Type<'a> {
    name: u32,
    kind: u32,
    /// Whether member offsets carry a bit-field's width in their upper byte.
    bit_fields: bool,
    /// A size in bytes or another type's id, by kind.
    size_or_type: u32,
    /// What follows the common part.
    rest: &'a [u8],
}

/// A struct with its fields; those of anonymous members are listed as its own.
pub(crate) struct Struct<'a> {
    pub(crate) name: &'a str,
    pub(crate) fields: Vec<FoundField<'a>>,
}

/// A field; offset and size are in bytes.
pub(crate) struct FoundField<'a> {
    pub(crate) name: &'a str,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

impl<'a> Btf<'a> {
    /// Parses the kernel's blob; nothing when it is damaged or newer than what is known.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(*bytes.first_chunk()?);
        if magic != MAGIC {
            return None;
        }
        let header_len = word(bytes, 4)? as usize;
        let section = |offset_at, len_at| {
            let start = header_len.checked_add(word(bytes, offset_at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, len_at)? as usize)?)
        };
        let mut rest: &[u8] = section(8, 12)?;
        let strings = section(16, 20)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let info = word(rest, 4)?;
            let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let extra = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * vlen,
                kind::ENUM | kind::FUNC_PROTO => 8 * vlen,
                _ => 0,
            };
            let ty = Type {
                name: word(rest, 0)?,
                kind,
                bit_fields: info >> 31 != 0,
                size_or_type: word(rest, 8)?,
                rest: rest.get(12..12 + extra)?,
            };
            types.push(ty);
            rest = &rest[12 + extra..];
        }
        Some(Self { types, strings })
    }

    /// The struct behind a type id, through typedefs and qualifiers.
    pub(crate) fn structure(&self, id: u32) -> Option<Struct<'a>> {
        let ty = self.resolve(id)?;
        let mut fields = Vec::new();
        if ty.kind != kind::STRUCT {
            return None;
        }
        self.collect(ty, 0, MAX_DEPTH, &mut fields)?;
        Some(Struct { name: self.string(ty.name)?, fields })
    }

    /// A type in words, for messages.
    pub(crate) fn describe(&self, id: u32) -> String {
        let Some(ty) = self.resolve(id) else { return format!("unknown type {id}") };
        let name = self.string(ty.name).unwrap_or_default();
        let size = self.size_of(id, MAX_DEPTH).unwrap_or_default();
        match ty.kind {
            kind::ARRAY => format!("an array of {size} bytes"),
            kind::UNION => format!("union {name}"),
            kind::STRUCT => format!("struct {name}"),
            _ if name.is_empty() => format!("a type of {size} bytes"),
            _ => name.to_owned(),
        }
    }

    fn collect(&self, ty: &Type<'a>, base: usize, depth: usize, fields: &mut Vec<FoundField<'a>>) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        for member in ty.rest.chunks_exact(12) {
            let (name, type_id, position) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let (bits, width) = if ty.bit_fields { (position & 0xff_ffff, position >> 24) } else { (position, 0) };
            let offset = base + bits as usize / 8;
            let name = self.string(name)?;
            let target = self.resolve(type_id)?;
            if name.is_empty() && matches!(target.kind, kind::STRUCT | kind::UNION) {
                self.collect(target, offset, depth, fields)?;
            } else {
                let size = if width > 0 { width.div_ceil(8) as usize } else { self.size_of(type_id, depth)? };
                fields.push(FoundField { name, offset, size });
            }
        }
        Some(())
    }

    fn resolve(&self, id: u32) -> Option<&Type<'a>> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_DEPTH {
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    ty = self.get(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn size_of(&self, id: u32, depth: usize) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        let ty = self.resolve(id)?;
        match ty.kind {
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(ty.size_or_type as usize)
            }
            kind::PTR => Some(8),
            kind::ARRAY => self.size_of(word(ty.rest, 0)?, depth)?.checked_mul(word(ty.rest, 8)? as usize),
            _ => None,
        }
    }

    /// Type ids count from 1; 0 is void.
    fn get(&self, id: u32) -> Option<&Type<'a>> {
        self.types.get((id as usize).checked_sub(1)?)
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let bytes = self.strings.get(offset as usize..)?;
        let len = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&bytes[..len]).ok()
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Type information in the kernel, for creating a map.
pub(crate) struct Loaded {
    pub(crate) fd: OwnedFd,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

/// Loads a description of the key and the value; nothing where the specification has none or the kernel takes none, in
/// which case the map works all the same but tools show bytes.
pub(crate) fn load(spec: &MapSpec) -> Option<Loaded> {
    let lacks_key = spec.key().is_none() && spec.map_type() == MapType::LPM_TRIE;
    if (spec.key().is_none() && spec.value().is_none()) || lacks_key {
        return None;
    }
    let mut builder = Builder::default();
    let key = builder.side(spec.key(), spec.key_size());
    let value = builder.side(spec.value(), spec.value_size());
    match bpf::load_btf(&builder.finish()) {
        Ok(fd) => Some(Loaded { fd, key, value }),
        Err(error) => {
            log::debug!("type information of map {} is not accepted: {error}", spec.name());
            None
        }
    }
}

#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    /// The id of a key's or a value's type.
    fn side(&mut self, layout: Option<StructLayout>, size: u32) -> u32 {
        let Some(layout) = layout else { return self.bytes(size as usize) };
        let members: Vec<[u32; 3]> = layout
            .fields
            .iter()
            .map(|field| [self.string(field.name), self.bytes(field.size), 8 * field.offset as u32])
            .collect();
        let name = self.string(layout.name);
        self.push(name, kind::STRUCT, members.len() as u32, layout.size as u32, members.as_flattened())
    }

    /// An unsigned integer where there is one of the size, else an array of bytes.
    fn bytes(&mut self, size: usize) -> u32 {
        match size {
            1 => self.int("__u8", 1),
            2 => self.int("__u16", 2),
            4 => self.int("__u32", 4),
            8 => self.int("__u64", 8),
            _ => {
                let (element, index) = (self.int("__u8", 1), self.int("__u32", 4));
                self.push(0, kind::ARRAY, 0, 0, &[element, index, size as u32])
            }
        }
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        let name = self.string(name);
        self.push(name, kind::INT, 0, size, &[8 * size])
    }

    fn push(&mut self, name: u32, kind: u32, vlen: u32, size: u32, rest: &[u32]) -> u32 {
        for word in [name, kind << 24 | vlen, size].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.count += 1;
        self.count
    }

    fn string(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            // Offset 0 is the empty name.
            self.strings.push(0);
        }
        let offset = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        offset
    }

    fn finish(mut self) -> Vec<u8> {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        let (types_len, strings_len) = (self.types.len() as u32, self.strings.len() as u32);
        let mut blob = Vec::with_capacity(HEADER_LEN + self.types.len() + self.strings.len());
        blob.extend_from_slice(&MAGIC.to_ne_bytes());
        // Version 1, no flags.
        blob.extend_from_slice(&[1, 0]);
        for word in [HEADER_LEN as u32, 0, types_len, types_len, strings_len] {
            blob.extend_from_slice(&word.to_ne_bytes());
        }
        blob.append(&mut self.types);
        blob.append(&mut self.strings);
        blob
    }
}
