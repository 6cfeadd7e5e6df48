//! Settings that other clients of the Hub have, too.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// How the Hub is used.
#[derive(Clone)]
pub struct HubOptions {
    /// Its URL.
    pub endpoint: String,
    /// What this user is known by.
    pub token: Option<String>,
    /// The local cache of repositories.
    pub cache: Option<PathBuf>,
    /// Use the local cache alone.
    pub offline: bool,
}

/// Not the token.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish()
    }
}

impl Default for HubOptions {
    fn default() -> Self {
        HubOptions {
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            cache: None,
            offline: false,
        }
    }
}

impl HubOptions {
    /// `HF_ENDPOINT`, `HF_TOKEN` or the text of `HF_TOKEN_PATH`, `HF_HUB_CACHE`, `HF_HOME` and
    /// `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name)?.into_string().ok();
        let home = set("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("XDG_CACHE_HOME")?).join("huggingface")))
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache/huggingface")));
        let token_file = set("HF_TOKEN_PATH").map(PathBuf::from);
        let token_file = token_file.or_else(|| Some(home.as_ref()?.join("token")));
        let token = text("HF_TOKEN").or_else(|| fs::read_to_string(token_file?).ok());
        let is_on =
            |value: String| matches!(&*value.to_ascii_uppercase(), "1" | "ON" | "YES" | "TRUE");
        HubOptions {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| Self::default().endpoint),
            token: token
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            cache: set("HF_HUB_CACHE")
                .map(PathBuf::from)
                .or_else(|| Some(home?.join("hub"))),
            offline: text("HF_HUB_OFFLINE").is_some_and(is_on),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_huggingface_hub_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        fs::write(&file, "hf_of_file\n").unwrap();
        let with = |variables: &[(&str, &str)]| {
            HubOptions::from_variables(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            })
        };
        let home = directory.path().to_str().unwrap();
        let options = with(&[("HF_HOME", home), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!(options.token.as_deref(), Some("hf_of_file"));
        assert_eq!(options.cache, Some(directory.path().join("hub")));
        assert!(options.offline);
        let options = with(&[
            ("HF_TOKEN", "hf_direct"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "http://127.0.0.1:1"),
            ("HOME", home),
        ]);
        assert_eq!(options.token.as_deref(), Some("hf_direct"));
        assert_eq!(options.cache, Some("/c".into()));
        assert_eq!(options.endpoint, "http://127.0.0.1:1");
        assert!(!options.offline);
        let path = file.to_str().unwrap();
        assert_eq!(
            with(&[("HF_TOKEN_PATH", path)]).token.as_deref(),
            Some("hf_of_file")
        );
        assert!(!format!("{options:?}").contains("hf_direct"));
    }
}
