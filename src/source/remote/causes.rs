//! What caused the errors of libraries.

use std::error::Error;
use std::io;

/// The text of an error with those of its causes, each once: most libraries put the useful part last.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// The cause of a kind among those of `error`.
pub(super) fn find_cause<'a, T: Error + 'static>(
    error: &'a (dyn Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = next_cause(error);
    }
    None
}

/// What caused `error`. An error of input or output stands for the one that it was made of, and leaves that out.
pub(super) fn next_cause<'a>(
    error: &'a (dyn Error + 'static),
) -> Option<&'a (dyn Error + 'static)> {
    let within = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match within {
        Some(within) => Some(within),
        None => error.source(),
    }
}
