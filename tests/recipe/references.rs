//! Where models are found: given by name, beside the recipe, in the cache of the hub.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::error::Code;
use ckptfs::recipe::{Places, ViewRequest};
use ckptfs::source::Location;

use crate::common::{Workspace, assert_names, message};
use crate::fixture::{workspace, write};

fn base(workspace: &Workspace, name: &str, places: &Places) -> ckptfs::Result<PathBuf> {
    let path = write(workspace, &format!("base: {name}\n"));
    let request = ViewRequest::from_recipe(&path, places)?;
    Ok(request.base.as_path().to_owned())
}

/// A cache with two snapshots of `org/name`, of which `main` is the second.
fn hub(workspace: &Workspace) -> Places {
    let hub = workspace.path().join("hub");
    let repository = hub.join("models--org--name");
    for commit in ["1111", "2222"] {
        fs::create_dir_all(repository.join("snapshots").join(commit)).unwrap();
    }
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "2222\n").unwrap();
    fs::write(repository.join("refs/evil"), "../../..").unwrap();
    Places {
        named: Vec::new(),
        hub: Some(hub),
    }
}

#[test]
fn a_revision_of_the_cache_is_its_snapshot() {
    let workspace = workspace();
    let places = hub(&workspace);
    let snapshots = workspace.path().join("hub/models--org--name/snapshots");
    let find = |name| base(&workspace, name, &places);
    assert_eq!(find("org/name").unwrap(), snapshots.join("2222"));
    assert_eq!(find("org/name@main").unwrap(), snapshots.join("2222"));
    assert_eq!(find("org/name@1111").unwrap(), snapshots.join("1111"));
    let missing = message(find("org/name@3333"));
    assert_names(
        &missing,
        &[
            "no snapshot of revision 3333",
            "models--org--name",
            "model: org/name@3333=DIR",
        ],
    );
    for bad in ["org/name@evil", "org/name@..", "'../hub/x/y'", "org/other"] {
        assert_names(&message(find(bad)), &["not on this machine"]);
    }
}

#[test]
fn a_directory_given_by_name_wins_over_one_beside_the_recipe() {
    let workspace = workspace();
    let mut places = hub(&workspace);
    assert_eq!(
        base(&workspace, "a", &places).unwrap(),
        workspace.path().join("a")
    );
    let elsewhere = PathBuf::from("/elsewhere");
    for id in ["a", "org/name", "org/pinned@1111"] {
        places.named.push((id.to_owned(), elsewhere.clone().into()));
    }
    for name in ["a", "org/name", "org/name@1111", "org/pinned@1111"] {
        assert_eq!(
            base(&workspace, name, &places).unwrap(),
            elsewhere,
            "{name}"
        );
    }
    assert!(base(&workspace, "org/pinned@2222", &places).is_err());
}

#[test]
fn a_url_is_written_down_as_it_is_and_refused_when_it_is_opened() {
    let workspace = workspace();
    let recipe = "base: ftp://host/m\nview:\n  lora:\n    - path: https://host/l\n      weight: 0.5\n  \
                  patch: [other@1]\n  models: {other@1: hf://org/name@1}\n";
    let path = write(&workspace, recipe);
    let request = ViewRequest::from_recipe(&path, &hub(&workspace)).unwrap();
    let urls = ["ftp://host/m", "https://host/l", "hf://org/name@1"];
    assert_eq!(request.sources(), urls.map(Location::from));
    let inputs = urls.iter().map(Path::new).chain([path.as_path()]);
    assert!(inputs.eq(request.inputs()));
    let again = write(&workspace, &request.to_recipe().unwrap());
    let again = ViewRequest::from_recipe(&again, &Places::default()).unwrap();
    assert_eq!(again.sources(), request.sources());
    let error = request.plan().unwrap_err();
    assert_eq!(error.code(), Code::UnsupportedPlace);
    assert_names(&error.to_string(), &["ftp://host/m"]);
}
