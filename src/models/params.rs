//! The parameters given for a model: are they the ones it takes, and what is the value of each?
//!
//! Every fault is reported at once. It never reads a file.

use std::collections::BTreeMap;

use crate::config::suggest::closest;
use crate::domain::model::Model;

/// Why the parameters given for a model are not the ones it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamFault {
    /// A required one was not given.
    #[error("parameter `{0}` is required")]
    Missing(String),
    /// The model has no such parameter.
    #[error("no parameter `{name}`{}", nearest(.near.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// A known one that is much like it.
        near: Option<String>,
    },
    /// It holds a zero byte, which neither an argument nor a variable can carry.
    #[error("parameter `{0}` must not contain a zero byte")]
    ZeroByte(String),
}

fn nearest(near: Option<&str>) -> String {
    near.map_or_else(String::new, |n| format!(", did you mean `{n}`?"))
}

/// All that is wrong with the parameters given for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ParamFaults(pub Vec<ParamFault>);

/// The value of every parameter of the model: the one given, else the default, else nothing.
///
/// # Errors
/// Every fault at once.
pub fn resolve_params(
    model: &Model,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ParamFaults> {
    let mut faults = Vec::new();
    for (name, value) in given {
        if !model.params.contains_key(name) {
            let near = closest(name, model.params.keys().map(String::as_str)).map(str::to_owned);
            faults.push(ParamFault::Unknown {
                name: name.clone(),
                near,
            });
        } else if value.contains('\0') {
            faults.push(ParamFault::ZeroByte(name.clone()));
        }
    }
    let mut values = BTreeMap::new();
    for (name, param) in &model.params {
        let value = given.get(name).or(param.default.as_ref());
        if value.is_none() && param.required {
            faults.push(ParamFault::Missing(name.clone()));
        }
        values.insert(name.clone(), value.cloned().unwrap_or_default());
    }
    if faults.is_empty() {
        Ok(values)
    } else {
        Err(ParamFaults(faults))
    }
}
