//! A loop over blocks.

/// Calls `$function` with each whole part of `$from` and the same one of `$to`; how long they are is
/// in its signature.
///
/// A function that took the function would not always be inlined, and so not be compiled for the CPU
/// path.
macro_rules! each {
    ($from:expr, $to:expr, $function:path) => {
        for (from, to) in $from.as_chunks().0.iter().zip($to.as_chunks_mut().0) {
            $function(from, to);
        }
    };
}

pub(super) use each;
