//! Any text as a recipe that may name tiny models: what is wrong is told with the file, and what
//! can be planned has the same bytes however it is read.
#![no_main]

use std::fs;
use std::path::{Component, Path};

use ckptfs::recipe::{Places, ViewRequest};
use ckptfs_fuzz::DIRECTORY;
use ckptfs_fuzz::memory::bounded;
use ckptfs_fuzz::models::MODELS;
use ckptfs_fuzz::reading::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let places = Places {
        named: MODELS
            .iter()
            .map(|(id, directory)| (id.clone(), directory.into()))
            .collect(),
        hub: None,
    };
    let path = DIRECTORY.path().join("recipe.yml");
    fs::write(&path, text).expect("the recipe can be written");
    // An alias of few bytes stands for values that are counted, up to 65,536.
    let request = bounded(text.len(), 32 << 20, 2 << 10, || {
        ViewRequest::from_recipe(&path, &places)
    });
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            assert!(error.to_string().contains("recipe.yml"), "{error}");
            return;
        }
    };
    if !request.directories().iter().all(|path| is_ours(path)) {
        return;
    }
    bounded(text.len(), 256 << 20, 16 << 10, || {
        if let Ok(plan) = request.plan() {
            read(&plan);
            emit(&request, &path);
        }
    });
});

/// Holds that what is written as a recipe says the same when it is read, without being told where
/// models are.
fn emit(request: &ViewRequest, path: &Path) {
    // It may be too long with all aliases written out.
    let Ok(emitted) = request.to_recipe() else {
        return;
    };
    fs::write(path, &emitted).expect("the recipe can be written");
    let again = ViewRequest::from_recipe(path, &Places::default());
    let again = again.unwrap_or_else(|error| panic!("{error}\n{emitted}"));
    assert_eq!(again.to_recipe().expect("it was said before"), emitted);
}

/// Whether it is a directory of this process: a recipe can name any.
fn is_ours(source: &Path) -> bool {
    match source.strip_prefix(DIRECTORY.path()) {
        Ok(inside) => inside
            .components()
            .all(|part| matches!(part, Component::Normal(_))),
        Err(_) => false,
    }
}
