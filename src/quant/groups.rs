//! Which weights are decided together: layers that engines load as one.
//!
//! | group | members |
//! |---|---|
//! | attention input | `q_proj`, `k_proj`, `v_proj` |
//! | gated MLP input | `gate_proj`, `up_proj` |
//! | linear attention input | `in_proj_qkv`, `in_proj_z` |
//! | linear attention gates | `in_proj_a`, `in_proj_b` |
//! | latent attention input | `q_a_proj`, `kv_a_proj_with_mqa` |
//! | experts | every weight of every expert of a layer |

use crate::tensor::Shape;

/// The group of weights that engines give one scale for all of each, as they are one layer there: those of the
/// table but experts, of which gate and up of each are one, and their other names. The result is what the
/// names of all members begin with, and which group of those that begin so.
pub(super) fn scaled_with(name: &str) -> Option<(&str, &'static str)> {
    const GROUPS: [&[&str]; 7] = [
        &["q_proj", "k_proj", "v_proj"],
        &["gate_proj", "up_proj"],
        &["w1", "w3"],
        &["in_proj_qkv", "in_proj_z"],
        &["in_proj_a", "in_proj_b"],
        &["q_a_proj", "kv_a_proj_with_mqa"],
        &["wq_a", "wkv_a"],
    ];
    let (parent, module) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    let group = GROUPS.iter().find(|group| group.contains(&module))?;
    Some((parent, group[0]))
}

/// What all members of a group share and no others do: the beginning of their names, and which
/// group of those that begin so.
pub(crate) type Group<'a> = (&'a str, &'static str);

/// The group that a weight belongs to.
pub(crate) fn group_of<'a>(name: &'a str, shape: &Shape) -> Option<Group<'a>> {
    const GROUPS: [&[&str]; 5] = [
        &["q_proj", "k_proj", "v_proj"],
        &["gate_proj", "up_proj"],
        &["in_proj_qkv", "in_proj_z"],
        &["in_proj_a", "in_proj_b"],
        &["q_a_proj", "kv_a_proj_with_mqa"],
    ];
    const EXPERTS: &str = ".experts.";
    if shape.len() < 2 {
        return None;
    }
    if let Some((layer, rest)) = name.split_once(EXPERTS) {
        let is_weight =
            rest.ends_with(".weight") || matches!(rest, "gate_up_proj" | "up_proj" | "down_proj");
        return is_weight.then_some((layer, EXPERTS));
    }
    let (parent, module) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    let group = GROUPS.iter().find(|group| group.contains(&module))?;
    Some((parent, group[0]))
}
