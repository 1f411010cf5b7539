//! Commands, environments and files of instances, in folders of their own; and the shipped Python
//! model as a running process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::models::{install_shipped, load_model, resolve_params};

/// A model folder and the folder of an instance to be.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let fixture = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fixture.file("m/model.toml", text, 0o644);
        fixture
    }

    fn file(&self, path: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn model(&self) -> Model {
        load_model(&self.dir.path().join("m")).unwrap()
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("i")
    }

    fn context(&self) -> InstanceVariables {
        InstanceVariables {
            name: "shop".into(),
            id: 7,
            host: "shop.apps.localhost".into(),
            hosts: vec!["shop.apps.localhost".into(), "shop.example.org".into()],
            url: "http://shop.apps.localhost:8080".into(),
            socket: Some("/run/x.sock".into()),
            port: None,
            dir: self.home().display().to_string(),
            data: self.home().join("data").display().to_string(),
            params: BTreeMap::from([("size".to_owned(), "3".to_owned())]),
            acc: "/bin/sh".into(),
        }
    }

    fn launch(&self) -> Result<Launch, RenderError> {
        launch(&self.model(), &self.context())
    }

    fn files(&self) -> Result<(), RenderError> {
        files(&self.model(), &self.context(), &self.home())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.home().join(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.home().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    }
}

#[test]
fn the_command_and_the_whole_environment_come_from_the_model() {
    let fixture = Fixture::new(
        "command = [\"sh\", \"{{ socket }}\", \"-n={{ params.size }}\", \"{% for h in hosts %}{{ h }},{% endfor %}\"]\nhealth = \"/up\"\n\
         [env]\nID = \"{{ id }}\"\nLANG = \"fr\"\nEMPTY = \"\"\n[params.size]",
    );
    let launch = fixture.launch().unwrap();
    assert!(
        launch.argv[0].starts_with('/') && launch.argv[0].ends_with("/sh"),
        "{:?}",
        launch.argv
    );
    assert_eq!(
        launch.argv[1..],
        [
            "/run/x.sock",
            "-n=3",
            "shop.apps.localhost,shop.example.org,"
        ]
    );
    let data = fixture.context().data;
    let expected = [
        ("PATH", PATH),
        ("HOME", data.as_str()),
        ("LANG", "fr"),
        ("EMPTY", ""),
        ("ID", "7"),
    ];
    assert_eq!(
        launch.env,
        expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
    assert_eq!(
        (launch.health.as_deref(), launch.stop_signal),
        (Some("/up"), 15)
    );
    assert!(!fixture.home().exists(), "nothing was made");
}

#[test]
fn what_a_template_may_not_name_is_an_error_and_never_empty() {
    let said = |text: &str| Fixture::new(text).launch().unwrap_err().to_string();
    // Where an `if` decides, only the values can tell.
    let port = said("command = [\"sh\", \"{% if name %}{{ port }}{% endif %}\"]");
    assert!(
        port.starts_with("template `m/model.toml: command[1]` is wrong: ") && port.contains("port"),
        "{port}"
    );
    assert!(said("command = [\"sh\"]\n[env]\nA = \"{{ params.nothing }}\"").contains("env.A"));
    let fixture = Fixture::new("command = [\"sh\", \"{{ name }}\\u0000\"]");
    let refused = load_model(&fixture.dir.path().join("m")).unwrap_err();
    assert!(format!("{refused:?}").contains("zero byte"), "{refused:?}");
}

#[test]
fn a_command_that_cannot_run_is_refused() {
    let said = |text: &str| Fixture::new(text).launch().unwrap_err().to_string();
    assert_eq!(
        said("command = [\"no-such-program\"]"),
        format!("command `no-such-program` of model `m` is not in any of {PATH}")
    );
    assert_eq!(
        said("command = [\"/no/such/program\"]"),
        "command `/no/such/program` of model `m` does not exist"
    );
    assert_eq!(
        said("command = [\"/etc/passwd\"]"),
        "command `/etc/passwd` of model `m` is not executable"
    );
    assert_eq!(
        said("command = [\"/etc\"]"),
        "command `/etc` of model `m` is not a file"
    );
    assert_eq!(
        said("command = [\"{{ '' }}\"]"),
        "command `` of model `m` is empty"
    );
    assert!(
        said("command = [\"bin/app\"]")
            .contains("is neither in the folder of the instance nor in `")
    );
    assert_eq!(
        said("command = [\"x\"]\n[env]\nPATH = \"/nowhere\""),
        "command `x` of model `m` is not in any of /nowhere"
    );
}

#[test]
fn a_program_among_the_files_counts_before_it_is_copied() {
    let fixture = Fixture::new("command = [\"bin/app\"]");
    fixture.file("m/files/bin/app", "#!/bin/sh\n", 0o644);
    assert_eq!(
        fixture.launch().unwrap_err().to_string(),
        "command `bin/app` of model `m` is not executable"
    );
    fixture.file("m/files/bin/app", "#!/bin/sh\n", 0o755);
    assert_eq!(
        fixture.launch().unwrap().argv,
        [fixture.home().join("bin/app").display().to_string()]
    );
    fs::remove_file(fixture.dir.path().join("m/files/bin/app")).unwrap();
    fixture.file("m/files/bin/app.tera", "#!/bin/sh\n", 0o755);
    assert!(fixture.launch().is_ok());
    assert_eq!(
        Fixture::new("command = [\"{{ acc }}\"]")
            .launch()
            .unwrap()
            .argv,
        ["/bin/sh"]
    );
}

#[test]
fn files_are_copied_rendered_and_linked() {
    let fixture = Fixture::new("command = [\"sh\"]");
    fixture.file("m/files/run.sh", "#!/bin/sh\necho {{ name }}\n", 0o6755);
    fixture.file(
        "m/files/conf/app.ini.tera",
        "name={{ name }}\nraw=<{{ url }}>\n",
        0o640,
    );
    fixture.file("m/files/data/seed", "s", 0o600);
    symlink("conf/app.ini", fixture.dir.path().join("m/files/now")).unwrap();
    for _ in 0..2 {
        fixture.files().unwrap();
        assert_eq!(fixture.read("run.sh"), "#!/bin/sh\necho {{ name }}\n");
        assert_eq!(
            fixture.read("now"),
            "name=shop\nraw=<http://shop.apps.localhost:8080>\n"
        );
        assert_eq!(fixture.read("data/seed"), "s");
        assert_eq!(
            (
                fixture.mode("run.sh"),
                fixture.mode("conf/app.ini"),
                fixture.mode("data/seed")
            ),
            (0o755, 0o640, 0o600)
        );
        assert_eq!(
            (fixture.mode(""), fixture.mode("data"), fixture.mode("log")),
            (0o750, 0o750, 0o750)
        );
        let names: std::collections::BTreeSet<_> = fs::read_dir(fixture.home())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(
            names,
            ["conf", "data", "log", "now", "run.sh"]
                .map(Into::into)
                .into(),
            "nothing is left beside"
        );
    }
}

#[test]
fn a_bad_template_among_the_files_is_named_with_its_line() {
    let fixture = Fixture::new("command = [\"sh\"]");
    fixture.file("m/files/a.conf.tera", "ok\n{{ nothing }}\n", 0o644);
    let said = fixture.files().unwrap_err().to_string();
    assert!(
        said.starts_with("template `m/files/a.conf.tera` is wrong: ") && said.ends_with("(line 2)"),
        "{said}"
    );
}

#[test]
fn nothing_is_written_outside_the_folder() {
    let fixture = Fixture::new("command = [\"sh\"]");
    fixture.file("m/files/conf/a", "new", 0o644);
    fixture.file("m/files/b", "new", 0o644);
    fixture.file("outside/a", "old", 0o644);
    fixture.files().unwrap();
    // The application owns its folder and may put links anywhere in it.
    fs::remove_file(fixture.home().join("b")).unwrap();
    symlink("../outside/a", fixture.home().join("b")).unwrap();
    fixture.files().unwrap();
    assert_eq!(fixture.read("b"), "new");
    fs::remove_dir_all(fixture.home().join("conf")).unwrap();
    symlink("../outside", fixture.home().join("conf")).unwrap();
    assert!(
        matches!(fixture.files(), Err(RenderError::Write { path, .. }) if path.ends_with("i/conf"))
    );
    assert_eq!(
        fs::read_to_string(fixture.dir.path().join("outside/a")).unwrap(),
        "old"
    );
}

/// Is there no Python to test with? In CI that is a failure.
fn without_python() -> bool {
    let missing = !PATH
        .split(':')
        .any(|dir| Path::new(dir).join("python3").exists());
    assert!(
        !missing || crate::config::Env::from_process().get("CI").is_none(),
        "python3 is needed"
    );
    if missing {
        println!("skipped: python3 is not installed");
    }
    missing
}

#[test]
fn the_shipped_models_render() {
    if without_python() {
        return;
    }
    let fixture = Fixture::new("command = [\"sh\"]");
    let models = fixture.dir.path().join("models");
    install_shipped(&models).unwrap();
    for (name, port) in [
        ("hello", None),
        ("hello-fd", None),
        ("hello-tcp", Some(20_000)),
        ("python-http", None),
    ] {
        let model = load_model(&models.join(name)).unwrap();
        let params = resolve_params(&model, &BTreeMap::new()).unwrap();
        let socket = port.is_none().then(|| "/run/x.sock".to_owned());
        launch(
            &model,
            &InstanceVariables {
                params,
                port,
                socket,
                ..fixture.context()
            },
        )
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// A process that is killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Python model, made and started as an instance would be.
fn python(fixture: &Fixture) -> (Running, PathBuf) {
    let models = fixture.dir.path().join("models");
    install_shipped(&models).unwrap();
    let model = load_model(&models.join("python-http")).unwrap();
    let socket = fixture.dir.path().join("s");
    let ctx = InstanceVariables {
        socket: Some(socket.display().to_string()),
        ..fixture.context()
    };
    let launch = launch(&model, &ctx).unwrap();
    files(&model, &ctx, &fixture.home()).unwrap();
    let mut command = Command::new(&launch.argv[0]);
    command
        .args(&launch.argv[1..])
        .env_clear()
        .envs(launch.env)
        .current_dir(fixture.home())
        .stdin(Stdio::null());
    (Running(command.spawn().unwrap()), socket)
}

fn connect(socket: &Path) -> UnixStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..2000 {
            if let Ok(stream) = UnixStream::connect(socket) {
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nothing listened for 10 s");
    })
}

fn ask(mut stream: UnixStream, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Reads one answer off a connection that stays open.
fn read_answer(stream: &mut UnixStream, until: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).ends_with(until) {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "it ended after {:?}",
            String::from_utf8_lossy(&answer)
        );
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn the_python_model_counts_keeps_and_ends_gracefully() {
    if without_python() {
        return;
    }
    let fixture = Fixture::new("command = [\"sh\"]");
    let get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (mut app, socket) = python(&fixture);
    assert!(
        ask(
            connect(&socket),
            b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .starts_with("HTTP/1.1 204 ")
    );
    assert!(ask(connect(&socket), get).contains("<h1>shop</h1><p>Visits: 1</p>"));
    let chunked = ask(
        connect(&socket),
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert!(
        chunked.ends_with(
            "\r\n\r\n3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
        ),
        "{chunked}"
    );

    // One connection between two requests, one in the middle of an upload.
    let mut idle = connect(&socket);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut idle, "</p>\n").contains("Visits: 2"));
    let mut upload = connect(&socket);
    upload
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .unwrap();
    read_answer(&mut upload, "100 Continue\r\n\r\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(app.0.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed");
    let answer = ask(upload, b"abc");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("Connection: close"),
        "{answer}"
    );
    assert!(app.0.wait().unwrap().success());

    let (_again, socket) = python(&fixture);
    let answer = ask(connect(&socket), get);
    assert!(
        answer.contains("Visits: 3"),
        "the number survived: {answer}"
    );
}
