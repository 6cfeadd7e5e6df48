//! What to do about an error or warning.

use std::borrow::Cow;
use std::fmt::Write;

/// How a setting of the request is written, with its value if one is given.
///
/// The library writes them as a recipe has them; the program as flags.
pub type Spelling = fn(setting: &str, value: Option<&str>) -> String;

/// `dtype: bf16`, as in a recipe.
pub fn as_keys(setting: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{setting}: {value}"),
        None => setting.to_owned(),
    }
}

/// What to do about an error or warning.
///
/// Settings are called as [`Setting::key`](crate::ops::Setting::key) calls them; those of
/// mounts, writing and checking, as the fields of their options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Something to do, in words.
    Text(Cow<'static, str>),
    /// Use a setting.
    Give {
        setting: &'static str,
        value: Option<Cow<'static, str>>,
        /// What that does: "dequantize the base first".
        to: Option<Cow<'static, str>>,
    },
    /// Leave a setting out.
    LeaveOut {
        setting: &'static str,
        value: Option<Cow<'static, str>>,
    },
    /// Use one setting instead of another.
    Instead {
        setting: &'static str,
        of: &'static str,
    },
    /// Any of these.
    Any(Vec<Hint>),
    /// One after the other.
    All(Vec<Hint>),
}

impl Hint {
    /// Something to do, in words.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Hint::Text(text.into())
    }

    /// Use `setting`.
    pub fn give(setting: &'static str) -> Self {
        Hint::Give {
            setting,
            value: None,
            to: None,
        }
    }

    /// Use `setting` with `value`.
    pub fn give_value(setting: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Hint::Give {
            setting,
            value: Some(value.into()),
            to: None,
        }
    }

    /// Leave `setting` out.
    pub fn leave_out(setting: &'static str) -> Self {
        Hint::LeaveOut {
            setting,
            value: None,
        }
    }

    /// Leave `setting` out, which is set to `value`.
    pub fn leave_out_value(setting: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Hint::LeaveOut {
            setting,
            value: Some(value.into()),
        }
    }

    /// Says what using the setting does.
    #[must_use]
    pub fn to(mut self, purpose: impl Into<Cow<'static, str>>) -> Self {
        if let Hint::Give { to, .. } = &mut self {
            *to = Some(purpose.into());
        }
        self
    }

    /// This or `other`.
    #[must_use]
    pub fn or(self, other: impl Into<Hint>) -> Self {
        match self {
            Hint::Any(mut hints) => {
                hints.push(other.into());
                Hint::Any(hints)
            }
            hint => Hint::Any(vec![hint, other.into()]),
        }
    }

    /// This, and then `other`.
    #[must_use]
    pub fn and(self, other: impl Into<Hint>) -> Self {
        match self {
            Hint::All(mut hints) => {
                hints.push(other.into());
                Hint::All(hints)
            }
            hint => Hint::All(vec![hint, other.into()]),
        }
    }

    /// A verb and what it is about, if the hint is no more than that.
    fn parts(&self, spelling: Spelling) -> (&'static str, String) {
        match self {
            Hint::Give {
                setting,
                value,
                to: None,
            } => ("use", spelling(setting, value.as_deref())),
            Hint::LeaveOut { setting, value } => ("leave out", spelling(setting, value.as_deref())),
            _ => ("", String::new()),
        }
    }

    /// In words, with settings as `spelling` has them.
    pub fn spelled(&self, spelling: Spelling) -> String {
        match self {
            Hint::Text(text) => text.clone().into_owned(),
            Hint::Give { setting, value, to } => {
                let mut text = format!("use {}", spelling(setting, value.as_deref()));
                if let Some(to) = to {
                    let _ = write!(text, " to {to}");
                }
                text
            }
            Hint::LeaveOut { setting, value } => {
                format!("leave out {}", spelling(setting, value.as_deref()))
            }
            Hint::Instead { setting, of } => format!(
                "use {} instead of {}",
                spelling(setting, None),
                spelling(of, None)
            ),
            Hint::Any(hints) => one_of(hints, spelling),
            Hint::All(hints) => joined(hints, ", and ", spelling),
        }
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        Hint::Text(text.into())
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Hint::Text(text.into())
    }
}

/// `use a, b or c`, `leave out a or b`, and otherwise each by itself.
fn one_of(hints: &[Hint], spelling: Spelling) -> String {
    let parts: Vec<(&str, String)> = hints.iter().map(|hint| hint.parts(spelling)).collect();
    let verb = parts.first().map_or("", |(verb, _)| verb);
    if parts.iter().all(|(other, _)| *other == verb) && !verb.is_empty() {
        let (_, last) = parts.last().expect("there is one");
        let others: Vec<&str> = parts[..parts.len() - 1].iter().map(|(_, s)| &**s).collect();
        format!("{verb} {} or {last}", others.join(", "))
    } else {
        joined(hints, ", or ", spelling)
    }
}

fn joined(hints: &[Hint], between: &str, spelling: Spelling) -> String {
    let hints: Vec<String> = hints.iter().map(|hint| hint.spelled(spelling)).collect();
    hints.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_spelled_as_asked() {
        let flags: Spelling = |setting, value| match value {
            Some(value) => format!("--{setting} {value}"),
            None => format!("--{setting}"),
        };
        let dequantize = Hint::give_value("dtype", "bf16").to("dequantize the base first");
        for (hint, keys, spelled) in [
            (Hint::text("repair it"), "repair it", "repair it"),
            (
                dequantize,
                "use dtype: bf16 to dequantize the base first",
                "use --dtype bf16 to dequantize the base first",
            ),
            (
                Hint::leave_out("dtype").or("start from another base"),
                "leave out dtype, or start from another base",
                "leave out --dtype, or start from another base",
            ),
            (
                Hint::leave_out("a").or(Hint::leave_out("b")),
                "leave out a or b",
                "leave out --a or --b",
            ),
            (
                Hint::Instead {
                    setting: "reference",
                    of: "patch",
                },
                "use reference instead of patch",
                "use --reference instead of --patch",
            ),
        ] {
            assert_eq!(hint.spelled(as_keys), keys);
            assert_eq!(hint.spelled(flags), spelled);
        }
    }
}
