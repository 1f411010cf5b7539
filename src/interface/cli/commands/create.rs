//! `acc create`: makes an instance. Its address is the data, what was done the talk.

use std::collections::BTreeMap;
use std::io::Read;

use super::super::args::CreateArgs;
use super::super::context::CommandContext;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use super::for_each;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::{NewInstance, Request};

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: CreateArgs) -> CommandEnd {
    let name = args.name.clone();
    let shown = name.clone().unwrap_or_else(|| args.model.clone());
    let request = Request::Create(new_instance(args)?);
    let outcome = for_each::one(
        call,
        &format!("creating `{shown}`"),
        name.as_deref(),
        request,
    )
    .await?;
    for_each::print(call, &outcome)?;
    if let (Outcome::Instance { instance, .. }, false) = (&outcome, call.ui.style.json) {
        call.ui.data(&format!("{}\n", instance.url))?;
    }
    Ok(CommandExit::Done)
}

fn new_instance(args: CreateArgs) -> Result<NewInstance, ServiceError> {
    let mut set = BTreeMap::new();
    let read = args
        .set_file
        .into_iter()
        .map(|(key, file)| from_file(&file).map(|value| (key, value)));
    for pair in args.set.into_iter().map(Ok).chain(read) {
        let (key, value) = pair?;
        if set.contains_key(&key) {
            return Err(invalid(
                format!("parameter `{key}` is given twice"),
                "give it once",
            ));
        }
        set.insert(key, value);
    }
    let idle_ms = args
        .idle
        .map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX));
    Ok(NewInstance {
        name: args.name,
        model: args.model,
        hosts: args.hosts,
        owner: args.owner,
        set,
        idle_ms,
        desired: args.desired,
        asleep: args.asleep,
    })
}

/// The text of a file or of standard input, without the newline at its end that editors and `echo`
/// add.
fn from_file(file: &str) -> Result<String, ServiceError> {
    let read = match file {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        path => std::fs::read_to_string(path),
    };
    let text = read.map_err(|e| {
        invalid(
            format!("could not read `{file}`: {e}"),
            "use --set-file KEY=FILE",
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn invalid(message: String, hint: &str) -> ServiceError {
    ServiceError::new(ErrorKind::Invalid, message, hint)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::args::{Cli, Command};
    use super::*;
    use crate::domain::instance::DesiredState;

    fn parse(words: &[&str]) -> Result<NewInstance, ServiceError> {
        let words = ["acc", "create"].iter().chain(words);
        let Command::Create(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        new_instance(args)
    }

    #[test]
    fn everything_typed_reaches_the_request() {
        let typed = [
            "shop", "--model", "hello", "--host", "a.org", "--host", "b.org", "--owner", "a@b.org",
            "--set", "x=1=2",
        ];
        let more = ["--idle", "1h 30m", "--desired", "down", "--asleep"];
        let new = parse(&[typed.as_slice(), &more].concat()).unwrap();
        let expected = NewInstance {
            name: Some("shop".to_owned()),
            model: "hello".to_owned(),
            hosts: vec!["a.org".to_owned(), "b.org".to_owned()],
            owner: Some("a@b.org".to_owned()),
            set: BTreeMap::from([("x".to_owned(), "1=2".to_owned())]),
            idle_ms: Some(5_400_000),
            desired: Some(DesiredState::Down),
            asleep: true,
        };
        assert_eq!(new, expected);
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n").unwrap();
        let arg = format!("password={}", file.display());
        let new = parse(&["--model", "m", "--set-file", &arg]).unwrap();
        assert_eq!(new.set.get("password").map(String::as_str), Some("s3cret"));
        let error = parse(&["--model", "m", "--set-file", "password=/no/such/file"]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("`/no/such/file`"));
        let error =
            parse(&["--model", "m", "--set-file", &arg, "--set", "password=x"]).unwrap_err();
        assert_eq!(error.message, "parameter `password` is given twice");
    }
}
