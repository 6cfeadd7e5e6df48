//! A patched, quantized and repacked view, and the files that it must hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ckptfs::ops::QuantizeParams;
use ckptfs::recipe::{Shards, ViewRequest};
use rustix::mount::UnmountFlags;
use safetensors::{Dtype, SafeTensors};

use crate::common::Workspace;
use crate::common::checkpoint::{Checkpoint, TensorData, tensor};
use crate::common::compare::assert_plan;
use crate::common::oracle::Wanted;
use crate::common::readback::read_all;

/// Far fewer than the bytes of the view.
pub(crate) const CACHE_BYTES: u64 = 2 << 20;
/// Tensor bytes of a shard, as a number and as a flag in GiB.
const SHARD_BYTES: u64 = 8 << 20;
const SHARD_GIB: &str = "0.0078125";

/// Sources, an empty directory to mount on, and a directory of what the mount must show.
pub(crate) struct Fixture {
    workspace: Workspace,
    request: ViewRequest,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) computed_bytes: u64,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let workspace = Workspace::new();
        let [base, extra] = checkpoints();
        let mut wanted = Wanted::new(base);
        wanted.extras = vec![extra];
        wanted.shards = Some(Shards::Repack);
        wanted.shard_bytes = SHARD_BYTES;
        let wanted = wanted.fp8_by_rules(QuantizeParams::default());
        let request = wanted.write(&workspace);
        let files = oracle(&wanted, &request);
        for (path, bytes) in &files {
            let path = workspace.path().join("oracle").join(path);
            fs::create_dir_all(path.parent().expect("a directory")).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::create_dir(workspace.path().join("mount")).unwrap();
        let computed = wanted.tensors().into_iter().filter(|t| t.computed);
        Fixture {
            workspace,
            request,
            files: files.len(),
            bytes: files.values().map(|bytes| bytes.len() as u64).sum(),
            computed_bytes: computed.map(|t| t.data.bytes.len() as u64).sum(),
        }
    }

    /// The arguments of `ckptfs mount` that name the view.
    pub(crate) fn flags(&self) -> Vec<PathBuf> {
        let mut flags: Vec<PathBuf> = vec!["--base".into(), self.request.base.as_path().into()];
        for extra in &self.request.operations.patch.extras {
            flags.extend(["--extra".into(), extra.as_path().into()]);
        }
        flags.extend(["--fp8", "--repack", "--shard-size-gb", SHARD_GIB].map(PathBuf::from));
        flags
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.workspace.path().join("mount")
    }

    /// The directory of the files that the mount must show.
    pub(crate) fn oracle(&self) -> PathBuf {
        self.workspace.path().join("oracle")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // After a failure the mount may still be there.
        let _ = rustix::mount::unmount(self.mountpoint(), UnmountFlags::DETACH);
    }
}

/// What every file of the view must hold. All tensor bytes come from the oracle. Headers, index and
/// config.json can be spelled in many ways: they are the plan's, held against the oracle by what
/// they say.
fn oracle(wanted: &Wanted, request: &ViewRequest) -> BTreeMap<PathBuf, Vec<u8>> {
    let plan = request.plan().unwrap();
    assert_plan(wanted, &plan);
    let mut files = read_all(&plan);
    let tensors = wanted.tensors().into_iter().map(|t| t.data);
    let tensors: BTreeMap<String, TensorData> = tensors.map(|t| (t.name.clone(), t)).collect();
    for shard in &plan.shards {
        let file = files.get_mut(Path::new(&shard.name)).expect("it is there");
        let (header_len, header) = SafeTensors::read_metadata(file).unwrap();
        file.truncate(8 + header_len);
        for name in header.offset_keys() {
            file.extend_from_slice(&tensors[&name].bytes);
        }
        assert_eq!(file.len() as u64, shard.len);
    }
    files
}

/// Tiles of many sizes, most of them small, so that most reads have to compute one; tensors that
/// are not computed between them; ragged ones.
fn checkpoints() -> [Checkpoint; 2] {
    const LAYERS: usize = 24;
    let named = |name: String, dtype, shape: &[usize]| {
        let seed = name
            .bytes()
            .fold(7, |h, b| (h * 31 + u64::from(b)) % 1_000_003);
        tensor(&name, dtype, shape, seed)
    };
    let layer = |prefix: &str, i: usize, dtype| {
        let name = |rest: &str| format!("{prefix}.{i}.{rest}.weight");
        let mut tensors = vec![
            named(name("input_layernorm"), Dtype::F32, &[257]),
            named(name("mlp.router"), Dtype::F32, &[64, 512]),
        ];
        if i.is_multiple_of(4) {
            tensors.extend([
                named(name("mlp.down_proj"), dtype, &[512, 1024]),
                named(name("mlp.gate_proj"), dtype, &[1024, 512]),
                named(name("mlp.up_proj"), dtype, &[1000, 500]),
            ]);
        }
        for j in 0..16 {
            for (kind, shape) in [
                ("gate", [128, 256]),
                ("up", [128, 256]),
                ("down", [256, 128]),
            ] {
                let name = name(&format!("mlp.experts.{j}.{kind}_proj"));
                tensors.push(named(name, dtype, &shape));
            }
        }
        tensors
    };
    let dtypes = [Dtype::BF16, Dtype::F16, Dtype::BF16, Dtype::F32];
    let mut base = Checkpoint::new()
        .aux("README.md", "# A model\n")
        .aux("tokenizer/vocab.json", vec![b'x'; 70_001]);
    for i in 0..LAYERS {
        let mut tensors = layer("model.layers", i, dtypes[i % dtypes.len()]);
        if i == 0 {
            tensors.push(named(
                "model.embed_tokens.weight".to_owned(),
                Dtype::BF16,
                &[4099, 512],
            ));
        }
        base = base.shard(&format!("engine-{i}.safetensors"), tensors);
    }
    let extra = Checkpoint::single(layer("mtp.layers", 0, Dtype::BF16));
    [base, extra]
}
