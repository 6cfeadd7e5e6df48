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
