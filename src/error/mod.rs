//! The one error type of the library, and its warnings. A message has a stable [`Code`], names the
//! file, and the tensor if there is one, says what was found and what was expected, and what to do.
//!
//! What to do is a value ([`Hint`]), so that the program writes settings as flags and the
//! library as the keys of a recipe.

mod code;
mod hint;
mod message;
mod place;
pub mod setting;
mod system;
mod warning;

pub use code::Code;
pub use hint::{Hint, Spelling, as_keys};
pub use message::NonFinite;
pub use place::Place;
pub use system::in_words;
pub use warning::Warning;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::message::{Cause, Message};
use crate::error::system::Refusal;

/// Why a view could not be planned or a byte could not be read.
///
/// Cloneable, because one failed computation may have several readers waiting for it.
#[derive(Clone)]
pub struct Error(Box<Message>);

/// Shorthand for results with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// How errors are made.
impl Error {
    pub fn new(code: Code, problem: impl Into<String>) -> Self {
        Error(Box::new(Message::new(code, problem.into())))
    }

    /// An error about a file or directory.
    pub fn of_file(code: Code, path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::new(code, problem).in_file(path)
    }

    /// An error about a tensor, which the file or directory `path` has, or lacks.
    pub fn of_tensor(
        code: Code,
        path: impl AsRef<Path>,
        tensor: impl AsRef<str>,
        problem: impl Into<String>,
    ) -> Self {
        Error::new(code, problem).in_file(path).about_tensor(tensor)
    }

    /// An operating system error met while doing `action` ("open", "list") to `path`.
    pub fn io(action: impl Into<String>, path: impl AsRef<Path>, cause: io::Error) -> Self {
        let Refusal {
            code,
            problem,
            hint,
        } = Refusal::from(&cause);
        let problem = format!("cannot {}: {problem}", action.into());
        let mut error = Error::of_file(code, path, problem);
        error.0.hint = hint.map(Hint::from);
        error.0.cause = Some(Cause::Io(Arc::new(cause)));
        error
    }

    /// A source is no longer the file that the view was planned from.
    pub fn source_changed(path: impl AsRef<Path>, what: impl fmt::Display) -> Self {
        let problem = format!("the file changed after the view was planned: {what}");
        let error = Error::of_file(Code::SourceChanged, path, problem);
        error.with_hint("mount the view again to use the new file")
    }

    /// A tensor that is to be quantized holds NaN or infinity.
    pub fn non_finite(tensor: impl AsRef<str>, found: NonFinite) -> Self {
        let NonFinite { row, column, value } = found;
        let problem = format!("{value} at row {row}, column {column} cannot be quantized");
        let mut error = Error::new(Code::NonFinite, problem)
            .about_tensor(tensor)
            .with_hint("repair the source or leave this tensor out of the selection");
        error.0.cause = Some(Cause::NonFinite(found));
        error
    }

    /// The system has no memory for a buffer of so many bytes.
    pub fn no_memory(bytes: usize) -> Self {
        let problem = format!("there is no memory for a buffer of {bytes} bytes");
        let error = Error::new(Code::NoMemory, problem);
        error.with_hint("give this process more, or use fewer threads or a smaller cache")
    }

    /// The job was stopped.
    pub fn interrupted() -> Self {
        Error::new(Code::Interrupted, "interrupted")
    }

    /// About this file or directory, in place of what it was about.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Self {
        self.0.file = Some(path.as_ref().to_owned());
        self
    }

    /// About this place in a recipe.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.0.place = Some(place);
        self
    }

    /// About this tensor.
    #[must_use]
    pub fn about_tensor(mut self, name: impl AsRef<str>) -> Self {
        self.0.tensor = Some(name.as_ref().to_owned());
        self
    }

    /// About a setting of the request.
    #[must_use]
    pub fn about(mut self, setting: &'static str) -> Self {
        self.0.setting = Some((setting, None));
        self
    }

    /// About one of the values of a setting.
    #[must_use]
    pub fn about_value(mut self, setting: &'static str, value: impl Into<String>) -> Self {
        self.0.setting = Some((setting, Some(value.into())));
        self
    }

    /// With warnings that may explain it.
    #[must_use]
    pub fn because(mut self, warnings: Vec<Warning>) -> Self {
        self.0.notes = warnings.into_iter().map(Warning::into_message).collect();
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }
}

/// What an error says.
impl Error {
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The file or directory that it is about.
    pub fn file(&self) -> Option<&Path> {
        let place = self.0.place.as_ref().map(|place| &*place.file);
        place.or(self.0.file.as_deref())
    }

    /// The place in a recipe that it is about.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// The tensor that it is about.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The setting of the request that it is about.
    pub fn setting(&self) -> Option<&'static str> {
        self.0.setting.as_ref().map(|(setting, _)| *setting)
    }

    /// What is wrong, without what it is about.
    pub fn problem(&self) -> &str {
        &self.0.problem
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&Hint> {
        self.0.hint.as_ref()
    }

    /// What the operating system refused.
    pub fn io_error(&self) -> Option<&io::Error> {
        match &self.0.cause {
            Some(Cause::Io(error)) => Some(error),
            _ => None,
        }
    }

    /// The kind of what the operating system refused.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.io_error().map(io::Error::kind)
    }

    /// Whether the same may work later, with nothing changed by anybody: no answer, a lock, or no room in memory.
    pub fn may_pass(&self) -> bool {
        match self.code() {
            Code::Unreachable | Code::Locked | Code::NoMemory | Code::TooManyOpenFiles => true,
            Code::Io => self.io_error().is_some_and(system::may_pass),
            _ => false,
        }
    }

    /// The value that cannot be quantized.
    pub fn found_non_finite(&self) -> Option<NonFinite> {
        match self.0.cause {
            Some(Cause::NonFinite(found)) => Some(found),
            _ => None,
        }
    }

    /// In words, with settings of the request as `spelling` has them.
    pub fn spelled(&self, spelling: Spelling) -> String {
        self.0.spelled(spelling)
    }

    /// The same, after the code: a line of a log.
    pub fn logged(&self, spelling: Spelling) -> String {
        format!("[{}] {}", self.code(), self.spelled(spelling))
    }
}

impl From<Error> for Warning {
    fn from(error: Error) -> Self {
        error.0.into()
    }
}

impl Place {
    /// An error about the text at this place.
    pub fn error(&self, code: Code, problem: impl Into<String>) -> Error {
        Error::new(code, problem).at(self.clone())
    }

    /// A warning about the text at this place.
    pub fn warning(&self, code: Code, problem: impl Into<String>) -> Warning {
        Warning::from(self.error(code, problem))
    }
}

/// The message; with `#`, behind the code.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if f.alternate() {
            self.logged(as_keys)
        } else {
            self.spelled(as_keys)
        })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io_error().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_result_is_as_small_as_a_pointer() {
        fn is_shared<T: Clone + Send + Sync + 'static>() {}
        is_shared::<Error>();
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn a_message_names_what_it_is_about_and_what_to_do() {
        let error = Error::of_tensor(Code::BadScales, "/m/a.safetensors", "w\n", "it is wrong")
            .with_hint(Hint::leave_out("dtype"));
        let text = "/m/a.safetensors: tensor w\\n: it is wrong; leave out dtype";
        assert_eq!(error.to_string(), text);
        let flags: Spelling = |setting, _| format!("--{setting}");
        let logged = "[bad-scales] /m/a.safetensors: tensor w\\n: it is wrong; leave out --dtype";
        assert_eq!(error.logged(flags), logged);
        assert_eq!(error.file(), Some(Path::new("/m/a.safetensors")));
        assert_eq!(error.tensor(), Some("w\n"));
        assert_eq!(error.problem(), "it is wrong");
        assert_eq!(error.hint(), Some(&Hint::leave_out("dtype")));
        let rule = Error::new(Code::BadValue, "it has no =").about_value("rename", "a");
        assert_eq!(rule.to_string(), "rename: a: it has no =");
    }

    #[test]
    fn what_the_system_refused_is_the_source() {
        let error = Error::io("open", "/x", io::ErrorKind::NotFound.into());
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
        let source = error.source().and_then(|s| s.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));
        let text = "/x: cannot open: there is no such file or directory";
        assert_eq!(error.clone().to_string(), text);
        assert!(Error::interrupted().source().is_none());
    }

    #[test]
    fn a_value_that_cannot_be_quantized_keeps_its_place() {
        let found = NonFinite {
            row: 3,
            column: 5,
            value: f32::INFINITY,
        };
        let error = Error::non_finite("w", found);
        assert_eq!(error.found_non_finite(), Some(found));
        assert!(
            error
                .to_string()
                .starts_with("tensor w: inf at row 3, column 5")
        );
    }
}
