//! Errors of the library as exceptions.

use ckptfs::error::{Code, Error, setting};
use ckptfs::ops::{Takes, split_scope};
use ckptfs::recipe::ViewRequest;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// `error` as a `ckptfs.Error`.
pub(crate) fn exception(error: &Error) -> PyErr {
    if error.code() == Code::Interrupted {
        return PyKeyboardInterrupt::new_err(());
    }
    Python::attach(|py| {
        let made = py.import("ckptfs._error").and_then(|module| {
            let file = error.file().map(|path| path.to_string_lossy());
            let hint = error.hint().map(|hint| hint.spelled(argument));
            let parts = (
                error.spelled(argument),
                error.code().to_string(),
                file,
                error.tensor(),
                hint,
            );
            module.getattr("Error")?.call1(parts)
        });
        made.map_or_else(|failure| failure, PyErr::from_value)
    })
}

/// A setting as an argument: `dtype="bf16"`.
pub(crate) fn argument(key: &str, value: Option<&str>) -> String {
    let mut settings = ViewRequest::settings().into_iter();
    let found = settings.find(|setting| setting.key == key);
    let name = |flag: &str| flag.replace('-', "_");
    let with_value = |flag: &str| match value {
        Some(value) => format!("{}={value:?}", name(flag)),
        None => name(flag),
    };
    match found.map(|setting| (setting.flag, setting.takes)) {
        Some((flag, Takes::SwitchOrChoice { flag: named, .. })) => match value {
            Some(_) => with_value(named),
            None => format!("{}=True", name(flag)),
        },
        Some((_, Takes::ScopedFlags(flags))) => {
            let (given, scope) = value.map(split_scope).unwrap_or_default();
            let given = flags.iter().find(|(known, ..)| *known == given);
            let flags = given.map_or(flags, std::slice::from_ref).iter();
            let flags = flags.map(|(_, flag, _)| match scope {
                Some(scope) => format!("{}={scope:?}", name(flag)),
                None => format!("{}=True", name(flag)),
            });
            flags.collect::<Vec<_>>().join(" or ")
        }
        Some((flag, Takes::Switch)) => format!("{}=True", name(flag)),
        Some((flag, _)) => with_value(flag),
        None => match value {
            Some("true") => format!("{key}=True"),
            Some("false") => format!("{key}=False"),
            _ if key == setting::LAZY => key.to_owned(),
            _ => with_value(key),
        },
    }
}
