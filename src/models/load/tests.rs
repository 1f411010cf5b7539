//! Models against the folders below `tests/models`, and the parameters they take.

use std::collections::BTreeMap;

use super::super::params::resolve_params;
use super::super::shipped::install_shipped;
use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn model(text: &str) -> Result<Model, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(FILE), text).unwrap();
    load_model(&folder)
}

#[test]
fn good_models_are_read_as_they_are_meant() {
    for found in list_models(&repository("tests/models/valid")).unwrap() {
        found.unwrap();
    }
    let full = find_model(&repository("tests/models/valid"), "full").unwrap();
    assert_eq!(
        (full.name.as_str(), full.description.as_str(), full.listen),
        ("full", "everything said", ListenKind::Tcp)
    );
    assert_eq!(full.command, ["bin/app", "--port={{ port }}"]);
    assert_eq!(
        (full.health.as_deref(), full.stop_signal),
        (Some("/up?a=b"), Signal::SIGINT as i32)
    );
    assert_eq!(
        full.env,
        BTreeMap::from([
            ("A".to_owned(), "{{ name }}".to_owned()),
            ("N".to_owned(), "5".to_owned())
        ])
    );
    assert_eq!(
        (
            full.start_timeout.unwrap().as_secs(),
            full.stop_timeout.unwrap().as_millis()
        ),
        (60, 500)
    );
    assert_eq!(full.params["size"].default.as_deref(), Some("10"));
    assert!(
        full.params["key"].required
            && full.params["key"].secret
            && full.params["note"].default.is_none()
    );
    let handed = find_model(&repository("tests/models/valid"), "handed").unwrap();
    assert_eq!(
        (handed.listen, handed.ready, full.ready),
        (ListenKind::Fd, Ready::Notify, Ready::Socket)
    );
    let least = find_model(&repository("tests/models/valid"), "least").unwrap();
    assert_eq!(
        (
            least.listen,
            least.stop_signal,
            least.health,
            least.start_timeout
        ),
        (ListenKind::Unix, 15, None, None)
    );
}

#[test]
fn every_fault_of_a_bad_model_is_reported() {
    let root = repository("tests/models/invalid");
    for name in folders(&root).unwrap() {
        let Err(ModelError::Wrong { faults, .. }) =
            find_model(&root, &name).or_else(|_| load_model(&root.join(&name)))
        else {
            panic!("{name} was accepted")
        };
        let got = lines(&faults, "\n") + "\n";
        let beside = root.join(&name).join("expected");
        if crate::config::Env::from_process()
            .get("ACC_BLESS")
            .is_some()
        {
            fs::write(&beside, &got).unwrap();
        }
        assert_eq!(
            got,
            fs::read_to_string(&beside).unwrap_or_default(),
            "{name}"
        );
    }
}

#[test]
fn a_wrong_model_says_which_file_and_line() {
    let said = model("command = []\nfoo = 1").unwrap_err().to_string();
    assert!(
        said.starts_with("model `m` is invalid: `/")
            && said
                .contains("/m/model.toml`: command: must not be empty (found [], line 1); foo: "),
        "{said}"
    );
    let said = model("command = [").unwrap_err().to_string();
    assert!(said.contains("(line 1, column "), "{said}");
}

#[test]
fn a_model_that_is_not_there_is_told_from_one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    install_shipped(dir.path()).unwrap();
    let said = |name: &str| find_model(dir.path(), name).unwrap_err().to_string();
    assert_eq!(
        said("helo"),
        "there is no model `helo`, did you mean `hello`?"
    );
    assert_eq!(said("../hello"), "there is no model `../hello`");
    assert_eq!(said("x"), "there is no model `x`");
    fs::create_dir(dir.path().join("pipe")).unwrap();
    nix::unistd::mkfifo(
        &dir.path().join("pipe").join(FILE),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    assert!(
        said("pipe").contains("pipe/model.toml"),
        "it is not waited for"
    );
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(
        matches!(find_model(dir.path(), "empty"), Err(ModelError::Read { path, .. }) if path.ends_with("empty/model.toml"))
    );
    assert!(list_models(&dir.path().join("nothing")).unwrap().is_empty());
    assert!(matches!(
        list_models(&dir.path().join("hello/model.toml")),
        Err(ModelError::Read { .. })
    ));
}

#[test]
fn the_shipped_models_are_good_and_one_bad_model_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    install_shipped(dir.path()).unwrap();
    fs::create_dir(dir.path().join("iffy")).unwrap();
    fs::write(dir.path().join("iffy").join(FILE), "x").unwrap();
    fs::create_dir(dir.path().join(".git")).unwrap();
    let all = list_models(dir.path()).unwrap();
    let names: Vec<_> = all
        .iter()
        .map(|m| m.as_ref().map(|m| m.name.as_str()).unwrap_or("?"))
        .collect();
    assert_eq!(
        names,
        ["hello", "hello-fd", "hello-tcp", "?", "python-http"]
    );
}

#[test]
fn templates_and_links_among_the_files_are_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("m/files");
    fs::create_dir_all(&files).unwrap();
    fs::write(dir.path().join("m").join(FILE), "command = [\"a\"]").unwrap();
    fs::write(files.join("x.conf.tera"), "\n\n{{ name").unwrap();
    std::os::unix::fs::symlink("/etc", files.join("etc")).unwrap();
    let said = load_model(&dir.path().join("m")).unwrap_err().to_string();
    assert!(
        said.contains("files/x.conf.tera: not a template: ") && said.contains("line 3)"),
        "{said}"
    );
    assert!(
        said.contains("files/etc: is a link to `/etc`, outside the folder"),
        "{said}"
    );
}

#[test]
fn parameters_are_the_given_ones_else_the_defaults() {
    let model = model("command = [\"a\"]\n[params.key]\nrequired = true\n[params.size]\ndefault = 3\n[params.note]\n").unwrap();
    let given = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let resolve = |pairs: &[(&str, &str)]| resolve_params(&model, &given(pairs));
    assert_eq!(
        resolve(&[("key", "k")]).unwrap(),
        given(&[("key", "k"), ("size", "3"), ("note", "")])
    );
    assert_eq!(resolve(&[("key", "k"), ("size", "")]).unwrap()["size"], "");
    assert_eq!(
        resolve(&[("key", "two\n\tlines\r\n")]).unwrap()["key"],
        "two\n\tlines\r\n"
    );
    let said = resolve(&[("siz", "1"), ("note", "a\0b")])
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "parameter `note` must not contain a zero byte; no parameter `siz`, did you mean `size`?; parameter `key` is required"
    );
}

#[test]
fn the_reference_names_every_key_and_its_examples_are_good() {
    let text = fs::read_to_string(repository("docs/models.md")).unwrap();
    let faults = Faults::new("[params.x]\n");
    let table = faults.parse();
    let _ = read(
        &Section::root(&faults, &table),
        "m".to_owned(),
        Path::new("m"),
    );
    for key in faults.asked() {
        let last = key.rsplit('.').next().unwrap();
        let written = [
            format!("`{last}`"),
            format!("[{last}]"),
            format!("[{last}.NAME]"),
        ];
        assert!(
            last == "x" || written.iter().any(|w| text.contains(w.as_str())),
            "`{key}` is not in docs/models.md"
        );
    }
    let examples: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        model(example).unwrap();
    }
}
