//! What a URL of the Hub names.

use reqwest::StatusCode;

use crate::error::{Code, Error, Result};

/// A repository, a revision of it, and a directory in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// `org/model`
    pub(super) repository: String,
    pub(super) revision: String,
    /// The directory in it, without slashes around it; empty for the whole of it.
    pub(super) directory: String,
    /// Whether the URL has the revision.
    named: bool,
}

impl Address {
    /// What `url` names: `hf://org/model[@revision][/directory]`. A slash in the name of a revision is
    /// written `%2F`.
    ///
    /// # Errors
    /// If it is not of this form.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |problem: &str| {
            let error = Error::of_file(Code::UnsupportedPlace, url, problem);
            Err(error.with_hint("write hf://org/model, hf://org/model@revision, or one of them with a directory or file after it"))
        };
        let rest = url
            .strip_prefix("hf://")
            .unwrap_or(url)
            .trim_end_matches('/');
        let mut parts = rest.splitn(3, '/');
        let (Some(organization), Some(model)) = (parts.next(), parts.next()) else {
            return wrong("a repository has two names, of the organization and of the model");
        };
        let directory = parts.next().unwrap_or_default();
        if matches!(organization, "datasets" | "spaces") {
            return wrong("only repositories of models are read");
        }
        let (model, revision) = match model.split_once('@') {
            Some((model, revision)) => (model, Some(revision.replace("%2F", "/"))),
            None => (model, None),
        };
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !name.is_empty() && !matches!(name, "." | "..") && name.chars().all(is_plain)
        };
        if !is_name(organization) || !is_name(model) {
            return wrong("names have letters, digits, and the signs - _ . alone");
        }
        let is_path = |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if revision
            .as_deref()
            .is_some_and(|revision| !is_path(revision))
        {
            return wrong("the revision is not a name");
        }
        if !directory.is_empty() && !is_path(directory) {
            return wrong("the path in the repository is not one");
        }
        Ok(Address {
            repository: format!("{organization}/{model}"),
            named: revision.is_some(),
            revision: revision.unwrap_or_else(|| "main".to_owned()),
            directory: directory.to_owned(),
        })
    }

    /// Whether it is the whole of the repository.
    pub(crate) fn is_repository(&self) -> bool {
        self.directory.is_empty()
    }

    /// The revision, if it is a commit.
    pub(super) fn commit(&self) -> Option<&str> {
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        (self.revision.len() == 40 && self.revision.chars().all(is_hex)).then_some(&self.revision)
    }

    /// The URL.
    pub(crate) fn root(&self) -> String {
        let mut url = format!("hf://{}", self.repository);
        if self.named {
            url.push('@');
            url.push_str(&self.revision.replace('/', "%2F"));
        }
        if !self.directory.is_empty() {
            url.push('/');
            url.push_str(&self.directory);
        }
        url
    }

    /// The path in the repository of the file `name` in the directory.
    pub(super) fn path(&self, name: &str) -> String {
        match &*self.directory {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        }
    }

    /// The error that the Hub refused a request, for a reason that it has a word for.
    pub(super) fn refusal(
        &self,
        reason: Option<&str>,
        status: StatusCode,
        has_token: bool,
    ) -> Error {
        let Address {
            repository,
            revision,
            ..
        } = self;
        let error = |code, problem: String| Error::of_file(code, self.root(), problem);
        let with = if has_token {
            "with this token"
        } else {
            "without a token"
        };
        match reason {
            Some("GatedRepo") => error(
                Code::GatedRepository,
                format!("{repository} is gated, and not open to this user {with}"),
            )
            .with_hint(format!(
                "accept its conditions at https://huggingface.co/{repository}, and set HF_TOKEN"
            )),
            Some("RepoNotFound" | "RepositoryNotFound") => error(
                Code::NotFound,
                format!("the Hub has no repository {repository}, or does not show it {with}"),
            )
            .with_hint("check the name; for a private repository, set HF_TOKEN"),
            Some("RevisionNotFound") => error(
                Code::NoRevision,
                format!("{repository} has no revision {revision}"),
            )
            .with_hint("name a branch, a tag or a whole commit after @"),
            _ if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => error(
                Code::AccessDenied,
                format!("the Hub refuses access {with} ({status})"),
            )
            .with_hint("check HF_TOKEN"),
            _ => error(Code::BadReply, format!("the Hub replied {status}"))
                .with_hint("check HF_ENDPOINT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_repository_a_revision_and_a_directory() {
        for (url, repository, revision, directory) in [
            ("hf://org/model", "org/model", "main", ""),
            ("hf://org/model/", "org/model", "main", ""),
            ("hf://org/model@v1.0", "org/model", "v1.0", ""),
            ("hf://o/m@refs%2Fpr%2F3/a/b", "o/m", "refs/pr/3", "a/b"),
            ("hf://o/m/q.gguf", "o/m", "main", "q.gguf"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.repository, repository);
            assert_eq!(address.revision, revision);
            assert_eq!(address.directory, directory);
            assert_eq!(address.root(), url.trim_end_matches('/'));
            assert_eq!(address.commit(), None);
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let address = Address::parse(&format!("hf://o/m@{commit}")).unwrap();
        assert_eq!(address.commit(), Some(commit));
        for wrong in [
            "hf://model",
            "hf://org/",
            "hf://datasets/org/x",
            "hf://org/model@",
            "hf://o/m/../x",
            "hf://o/m@a/..",
            "hf://o r/m",
            "hf://../m",
        ] {
            let error = Address::parse(wrong).unwrap_err();
            assert_eq!(error.code(), Code::UnsupportedPlace, "{wrong}");
        }
    }
}
