//! Files of `torch.save`: storages, and the pickle of what refers to them.

use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::recipe::{Plan, ViewRequest};

use crate::common::Workspace;
use crate::common::checkpoint::CONFIG;
use crate::pickle::{Py, call, dict, dump, global, int, ints, text};
use crate::zip::Zip;

/// A storage by its class.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    pub(crate) class: &'static str,
    /// Bytes of an element.
    pub(crate) width: usize,
    pub(crate) data: Vec<u8>,
}

impl Storage {
    /// A storage of f32 whose bytes are different.
    pub(crate) fn floats(count: usize) -> Self {
        Storage {
            class: "FloatStorage",
            width: 4,
            data: (0..count * 4).map(|i| (i * 37 % 251) as u8).collect(),
        }
    }

    fn len(&self) -> u64 {
        (self.data.len() / self.width) as u64
    }

    /// The element at `at`.
    pub(crate) fn element(&self, at: usize) -> &[u8] {
        &self.data[at * self.width..(at + 1) * self.width]
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Zip,
    Legacy,
}

pub(crate) const FORMS: [Form; 2] = [Form::Zip, Form::Legacy];

/// A file in the making.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) form: Form,
    pub(crate) protocol: u8,
    pub(crate) storages: Vec<Storage>,
}

impl File {
    pub(crate) fn new(form: Form, storages: impl Into<Vec<Storage>>) -> Self {
        File {
            form,
            protocol: 2,
            storages: storages.into(),
        }
    }

    /// The persistent id of a storage.
    pub(crate) fn storage(&self, at: usize) -> Py {
        let storage = &self.storages[at];
        let mut id = vec![
            text("storage"),
            global("torch", storage.class),
            text(&at.to_string()),
            text("cpu"),
            int(storage.len()),
        ];
        if self.form == Form::Legacy {
            id.push(Py::None);
        }
        Py::Persistent(Box::new(Py::Tuple(id)))
    }

    /// A view of a storage.
    pub(crate) fn view(&self, storage: usize, offset: u64, shape: &[u64], strides: &[u64]) -> Py {
        let arguments = vec![
            self.storage(storage),
            int(offset),
            ints(shape),
            ints(strides),
            Py::Bool(false),
            call("collections", "OrderedDict", Vec::new()),
        ];
        call("torch._utils", "_rebuild_tensor_v2", arguments)
    }

    /// All of a storage, as a vector.
    pub(crate) fn whole(&self, storage: usize) -> Py {
        self.view(storage, 0, &[self.storages[storage].len()], &[1])
    }

    /// The archive that has saved `root`.
    pub(crate) fn zip(&self, root: &Py) -> Zip {
        let mut zip = Zip::default()
            .entry("archive/data.pkl", dump(root, self.protocol))
            .entry("archive/byteorder", "little");
        for (key, storage) in self.storages.iter().enumerate() {
            zip = zip.entry(&format!("archive/data/{key}"), &*storage.data);
        }
        zip.entry("archive/version", "3\n")
    }

    /// The file that has saved `root`.
    pub(crate) fn bytes(&self, root: &Py) -> Vec<u8> {
        match self.form {
            Form::Zip => self.zip(root).bytes(),
            Form::Legacy => self.legacy(root, true),
        }
    }

    /// The same in the legacy form, with a byte order.
    pub(crate) fn legacy(&self, root: &Py, little_endian: bool) -> Vec<u8> {
        let system = dict([
            ("protocol_version", int(1001)),
            ("little_endian", Py::Bool(little_endian)),
        ]);
        let keys = (0..self.storages.len()).map(|key| text(&key.to_string()));
        let pickles = [
            &Py::Int(0x1950_a86a_20f9_469c_fc6c),
            &int(1001),
            &system,
            root,
            &Py::List(keys.collect()),
        ];
        let mut bytes: Vec<u8> = pickles
            .into_iter()
            .flat_map(|pickle| dump(pickle, self.protocol))
            .collect();
        for storage in &self.storages {
            bytes.extend(storage.len().to_le_bytes());
            bytes.extend(&storage.data);
        }
        bytes
    }
}

/// A directory of a model whose `pytorch_model.bin` has these bytes.
pub(crate) fn directory(workspace: &Workspace, bytes: &[u8]) -> PathBuf {
    directory_of(workspace, &[("pytorch_model.bin", bytes)])
}

/// A directory of a model with these files.
pub(crate) fn directory_of(workspace: &Workspace, files: &[(&str, &[u8])]) -> PathBuf {
    let directory = workspace.path().join("base");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.json"), CONFIG).unwrap();
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
    directory
}

/// The plan of the view that is `base`.
pub(crate) fn plan(base: &Path) -> ckptfs::Result<Plan> {
    ViewRequest::new(base).plan()
}

/// The plan of the view of a model whose `pytorch_model.bin` has these bytes.
pub(crate) fn plan_of(bytes: &[u8]) -> ckptfs::Result<(Workspace, Plan)> {
    let workspace = Workspace::new();
    let plan = plan(&directory(&workspace, bytes))?;
    Ok((workspace, plan))
}

/// The error that comes of such a model.
pub(crate) fn refused(bytes: &[u8]) -> ckptfs::Error {
    match plan_of(bytes) {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}
