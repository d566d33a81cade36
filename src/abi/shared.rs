//! The macro that declares a shared struct, and the trait that describes it at run time.

use bytemuck::Pod;

/// One field of a shared struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in C.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// A plain-old-data struct whose layout is the one the programs use.
pub trait Shared: Pod {
    /// The struct's name in C.
    const NAME: &'static str;
    /// Its fields, in order.
    const FIELDS: &'static [Field];
}

/// A field's name without the `r#` that Rust's keywords need.
pub(crate) const fn c_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Declares a struct shared with C: `pub struct RustName = c_name { field: type, … }`.
///
/// The fields carry C's names. The expansion derives `Pod`, implements [`Shared`] and asserts size and offsets against the
/// compiled BTF.
macro_rules! shared_struct {
    ($(#[$meta:meta])* pub struct $name:ident = $c_name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        impl $crate::abi::Shared for $name {
            const NAME: &'static str = stringify!($c_name);
            const FIELDS: &'static [$crate::abi::Field] = &[$($crate::abi::Field {
                name: $crate::abi::shared::c_name(stringify!($field)),
                offset: std::mem::offset_of!($name, $field),
                size: std::mem::size_of::<$type>(),
            },)+];
        }

        const _: () = {
            use $crate::abi::oracle::types::$c_name as Oracle;
            assert!(std::mem::size_of::<$name>() == std::mem::size_of::<Oracle>(), "size differs from C");
            $(assert!(
                std::mem::offset_of!($name, $field) == std::mem::offset_of!(Oracle, $field),
                concat!("offset of ", stringify!($field), " differs from C")
            );)+
        };
    };
}
pub(crate) use shared_struct;
