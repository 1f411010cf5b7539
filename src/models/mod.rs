//! Models: folders with a `model.toml`, from which instances are made.
//!
//! [`load`](load_model) reads and checks them, `params` resolves what is given for one, `files`
//! lists its `files/` folder, `template` renders its small templates, `shipped` installs the models
//! that come with acc. Nothing here makes an instance: `render::instance` does.

pub mod files;
mod load;
mod names;
mod params;
mod shipped;
pub mod template;

pub use load::{ModelError, find_model, list_models, load_model, open_params};
pub use params::{ParamFault, ParamFaults, resolve_params};
pub use shipped::{SHIPPED, install_shipped};
