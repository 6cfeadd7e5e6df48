//! Large buffers: where there is no memory for one, that is an error of who asked for it, and not
//! the end of the process.

use crate::error::{Error, Result};

/// Gives `bytes` the length `len`; bytes that are new are 0.
pub(crate) fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<()> {
    let more = len.saturating_sub(bytes.len());
    let reserved = bytes.try_reserve_exact(more);
    reserved.map_err(|_| Error::OutOfMemory { bytes: len })?;
    bytes.resize(len, 0);
    Ok(())
}

/// An empty buffer that `capacity` bytes fit into.
pub(crate) fn with_capacity(capacity: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(capacity);
    reserved.map_err(|_| Error::OutOfMemory { bytes: capacity })?;
    Ok(bytes)
}

/// Some processors (AMD Zen) copy at a third of their speed to where a page is 1 to 63 bytes further
/// along than at the source; so what is copied to begins with a page, and not behind the 16 bytes that
/// an allocator keeps there.
pub(crate) const PAGE: usize = 4096;

/// How far it is from the beginning of `bytes`' memory to that of a page, less than [`PAGE`].
pub(crate) fn to_page(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr().wrapping_neg() % PAGE
}

/// A buffer of `len` zeros.
pub(crate) fn zeros(len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    resize(&mut bytes, usize::try_from(len).unwrap_or(usize::MAX))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_it_is_said_to() {
        for len in [0, 1, 10, 5000, 2 << 20] {
            let mut bytes = vec![0; len];
            bytes.reserve_exact(PAGE);
            let start = to_page(&bytes);
            assert!(start < PAGE);
            assert_eq!((bytes.as_ptr().addr() + start) % PAGE, 0);
        }
    }

    #[test]
    fn a_buffer_that_no_machine_has_is_an_error() {
        let error = zeros(1 << 62).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { bytes } if bytes == 1 << 62));
        let mut bytes = vec![7];
        assert!(resize(&mut bytes, usize::MAX).is_err());
        assert_eq!(bytes, [7]);
        resize(&mut bytes, 3).unwrap();
        assert_eq!(bytes, [7, 0, 0]);
    }
}
