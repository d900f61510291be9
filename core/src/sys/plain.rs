//! Structs that are passed as they lie in memory.

use crate::proto::{Header, IdmapEntry, Op, OwnMapEntry, Request};

/// # Safety
/// Every byte of it is initialised: what would be padding is a field.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($name:ident),*) => {$(
        // SAFETY: `repr(C)`, of integers in an order that leaves nothing between them; those that were added for that are named
        // `pad`. The plans' tests look at the sizes.
        unsafe impl Plain for $name {}
    )*};
}

plain!(Header, IdmapEntry, Op, OwnMapEntry, Request);

pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: all bytes of a `Plain` are initialised, and they live as long as the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
