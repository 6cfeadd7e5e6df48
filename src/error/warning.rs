//! What is probably not what was meant.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::error::code::Code;
use crate::error::hint::{Hint, Spelling, as_keys};
use crate::error::message::Message;

/// Something that is probably not what was meant, or a fault that does not stop the job.
#[derive(Clone)]
pub struct Warning {
    message: Box<Message>,
    /// In words, as the library says it.
    text: String,
}

impl Warning {
    pub fn new(code: Code, problem: impl Into<String>) -> Self {
        Box::new(Message::new(code, problem.into())).into()
    }

    /// About `setting` of the request.
    #[must_use]
    pub fn about(mut self, setting: &'static str) -> Self {
        self.message.setting = Some((setting, None));
        self.message.into()
    }

    /// About one of the values of `setting`.
    #[must_use]
    pub fn about_value(mut self, setting: &'static str, value: impl Into<String>) -> Self {
        self.message.setting = Some((setting, Some(value.into())));
        self.message.into()
    }

    /// About a file or directory.
    #[must_use]
    pub fn in_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.message.file = Some(path.into());
        self.message.into()
    }

    /// What to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.message.hint = Some(hint.into());
        self.message.into()
    }

    /// With `text` after the problem.
    pub(crate) fn followed_by(mut self, text: &str) -> Self {
        self.message.problem += text;
        self.message.into()
    }

    pub(super) fn into_message(self) -> Message {
        *self.message
    }

    pub fn code(&self) -> Code {
        self.message.code
    }

    /// In words, with settings of the request as a recipe has them.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In words, with settings of the request as `spelling` has them.
    pub fn spelled(&self, spelling: Spelling) -> String {
        self.message.spelled(spelling)
    }
}

impl From<Box<Message>> for Warning {
    fn from(message: Box<Message>) -> Self {
        let text = message.spelled(as_keys);
        Warning { message, text }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.code())
    }
}

impl PartialEq for Warning {
    fn eq(&self, other: &Self) -> bool {
        (self.code(), &self.text) == (other.code(), &other.text)
    }
}

impl PartialEq<str> for Warning {
    fn eq(&self, text: &str) -> bool {
        self.text == text
    }
}

impl PartialEq<&str> for Warning {
    fn eq(&self, text: &&str) -> bool {
        self.text == *text
    }
}

/// For lists of them to be joined.
impl Borrow<str> for Warning {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl AsRef<str> for Warning {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Warning", 2)?;
        fields.serialize_field("code", &self.code())?;
        fields.serialize_field("text", &self.text)?;
        fields.end()
    }
}
