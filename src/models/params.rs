//! Checks the parameters given for a model, and finds the value of each.
//!
//! It reports every fault at once and never reads a file.

use std::collections::BTreeMap;

use crate::config::suggest::closest;
use crate::domain::model::Model;

/// Why the given parameters do not fit the model.
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
        /// A similar known one.
        near: Option<String>,
    },
    /// It contains a zero byte, which is impossible in an argument or a variable.
    #[error("parameter `{0}` must not contain a zero byte")]
    ZeroByte(String),
}

fn nearest(near: Option<&str>) -> String {
    near.map_or_else(String::new, |n| format!(", did you mean `{n}`?"))
}

/// All faults of the given parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ParamFaults(pub Vec<ParamFault>);

/// The value of every parameter of the model: the given one, else the default, else empty.
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
