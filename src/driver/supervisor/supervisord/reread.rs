//! Makes sections known to supervisord: it rereads its configuration for that, once for all
//! sections that are waiting.
//!
//! supervisord keeps in memory what it has read, so an instance's section is in the folder that
//! supervisord reads only while it is added, and in `kept` afterwards. To read 1,000 sections takes
//! a second, in which supervisord answers nothing else. This way it takes a few milliseconds,
//! however many instances are awake.
//!
//! The order of steps keeps the files correct: a group is removed from supervisord before its file
//! in `kept` changes, and the file is moved to `kept` after the group was added. So a group in
//! supervisord with a file in `kept` was made from that file, even after a crash between two steps.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::super::SupervisorError;
use super::rpc::{RpcClient, RpcError};
use super::sections::Sections;
use super::xmlrpc::{Value, XmlRpcFault, fault};

/// Most sections added at once: the start of one waits for all.
const MOST: usize = 64;

type AddedReply = oneshot::Receiver<Result<SectionAdded, RpcError>>;

/// Sections, and those about to be added.
#[derive(Debug)]
pub(super) struct Rereads {
    /// What supervisord has, or will read when it starts.
    pub(super) kept: Sections,
    /// What it reads on request. `None`: it reads `kept`.
    adding: Option<Sections>,
    queue: Mutex<VecDeque<QueuedSection>>,
    /// Held by the task that adds the queued sections.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct QueuedSection {
    name: String,
    text: String,
    reply: oneshot::Sender<Result<SectionAdded, RpcError>>,
}

/// The result for a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionAdded {
    /// supervisord has it.
    Now,
    /// supervisord has a group of this name, made from an unknown text.
    WasThere,
}

impl Rereads {
    /// Sections that supervisord reads with every reread.
    pub(super) fn lasting(dir: PathBuf) -> Self {
        Self {
            kept: Sections::new(dir),
            adding: None,
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Sections that it reads once, from `adding`.
    pub(super) fn once(kept: PathBuf, adding: PathBuf) -> Self {
        Self {
            adding: Some(Sections::new(adding)),
            ..Self::lasting(kept)
        }
    }

    /// The folder that supervisord reads.
    pub(super) fn read(&self) -> &Sections {
        self.adding.as_ref().unwrap_or(&self.kept)
    }

    /// Removes the section's file; supervisord must not have the section any more.
    pub(super) fn remove(&self, name: &str) -> Result<(), SupervisorError> {
        self.kept.remove(name)?;
        self.adding
            .as_ref()
            .map_or(Ok(()), |adding| adding.remove(name))
    }

    /// Makes the section known to supervisord, which must have no group of this name.
    pub(super) async fn add(
        &self,
        client: &RpcClient,
        name: &str,
        text: &str,
    ) -> Result<SectionAdded, RpcError> {
        loop {
            let (reply, mut answer) = oneshot::channel();
            self.queue().push_back(QueuedSection {
                name: name.to_owned(),
                text: text.to_owned(),
                reply,
            });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered.ok(),
                _turn = self.turn.lock() => self.work_for(client, &mut answer).await,
            };
            if let Some(added) = answered {
                return added;
            }
            // The task that was adding it was dropped: start again.
        }
    }

    /// Works until this section is answered; others may come first.
    async fn work_for(
        &self,
        client: &RpcClient,
        answer: &mut AddedReply,
    ) -> Option<Result<SectionAdded, RpcError>> {
        loop {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => self.work(client).await,
                Ok(added) => return Some(added),
                Err(TryRecvError::Closed) => return None,
            }
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<QueuedSection>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the queued sections and answers every one of them.
    async fn work(&self, client: &RpcClient) {
        let mut batch: Vec<QueuedSection> = {
            let mut queue = self.queue();
            let most = queue.len().min(MOST);
            queue
                .drain(..most)
                .filter(|wanted| !wanted.reply.is_closed())
                .collect()
        };
        // Each round finishes all, or removes one bad or left-over section.
        while !batch.is_empty() {
            match self.exchange(client, &batch).await {
                Ok(results) => {
                    for (wanted, result) in batch.drain(..).zip(results) {
                        let result = self.settle(&wanted.name, result);
                        let _ = wanted.reply.send(result);
                    }
                }
                Err(BatchRefused { why, culprit }) => {
                    batch
                        .iter()
                        .for_each(|wanted| drop(self.read().remove(&wanted.name)));
                    match culprit
                        .as_ref()
                        .map(|name| (name, batch.iter().position(|wanted| wanted.name == *name)))
                    {
                        Some((_, Some(at))) => drop(batch.remove(at).reply.send(Err(why))),
                        Some((name, None)) => {
                            tracing::warn!(
                                section = name,
                                "supervisord refuses a section; removing it until the instance's next start"
                            );
                            if self.read().remove(name).is_err() {
                                fail(batch.drain(..), &why);
                            }
                        }
                        None => fail(batch.drain(..), &why),
                    }
                }
            }
        }
    }

    /// Writes the sections, has them read and added. Returns one result each, or why none was added
    /// and which section is at fault.
    async fn exchange(
        &self,
        client: &RpcClient,
        batch: &[QueuedSection],
    ) -> Result<Vec<Result<Value, XmlRpcFault>>, BatchRefused> {
        self.write(batch).map_err(|e| BatchRefused {
            why: RpcError::Broken(e.to_string()),
            culprit: None,
        })?;
        let name = |wanted: &QueuedSection| vec![Value::text(&wanted.name)];
        let mut calls = vec![("supervisor.reloadConfig", vec![])];
        calls.extend(
            batch
                .iter()
                .map(|wanted| ("supervisor.addProcessGroup", name(wanted))),
        );
        let mut results = client
            .multicall(&calls)
            .await
            .map_err(|why| BatchRefused { why, culprit: None })?;
        let Err(refused) = results.remove(0) else {
            return Ok(results);
        };
        // supervisord caches the configuration it read before, and may have made groups from it.
        let back: Vec<_> = batch
            .iter()
            .map(|wanted| ("supervisor.removeProcessGroup", name(wanted)))
            .collect();
        let culprit = if refused.code == fault::CANT_REREAD {
            self.read().culprit(&refused.text)
        } else {
            None
        };
        match client.multicall(&back).await {
            Ok(_) => Err(BatchRefused {
                why: refused.into(),
                culprit,
            }),
            Err(why) => Err(BatchRefused { why, culprit: None }),
        }
    }

    fn write(&self, batch: &[QueuedSection]) -> Result<(), SupervisorError> {
        if let Some(adding) = &self.adding {
            // Left by an acc that was killed.
            let names: Vec<String> = batch.iter().map(|wanted| wanted.name.clone()).collect();
            adding.keep_only(&names)?;
            batch
                .iter()
                .try_for_each(|wanted| self.kept.remove(&wanted.name))?;
        }
        batch
            .iter()
            .try_for_each(|wanted| self.read().write(&wanted.name, &wanted.text))
    }

    /// Keeps the file of an added section and removes any other.
    fn settle(
        &self,
        name: &str,
        result: Result<Value, XmlRpcFault>,
    ) -> Result<SectionAdded, RpcError> {
        let broken = |e: SupervisorError| RpcError::Broken(e.to_string());
        match result {
            Ok(_) => match &self.adding {
                Some(adding) => adding
                    .move_to(name, &self.kept)
                    .map_err(broken)
                    .map(|()| SectionAdded::Now),
                None => Ok(SectionAdded::Now),
            },
            Err(refused) => {
                self.read().remove(name).map_err(broken)?;
                if refused.code == fault::ALREADY_ADDED {
                    Ok(SectionAdded::WasThere)
                } else {
                    Err(refused.into())
                }
            }
        }
    }
}

/// Why none of a batch was added.
struct BatchRefused {
    why: RpcError,
    /// The section that supervisord complains about.
    culprit: Option<String>,
}

fn fail(batch: impl Iterator<Item = QueuedSection>, why: &RpcError) {
    batch.for_each(|wanted| drop(wanted.reply.send(Err(why.clone()))));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    /// A supervisord that adds whatever it is asked to. It reports for each exchange how many
    /// groups were added, and answers when it is allowed to.
    fn serve(
        dir: &std::path::Path,
        allowed: Arc<tokio::sync::Semaphore>,
    ) -> tokio::sync::mpsc::UnboundedReceiver<usize> {
        let listener = UnixListener::bind(dir.join("s")).unwrap();
        let (reported, exchanges) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut buffer) = (String::new(), vec![0; 65_536]);
            loop {
                while !read.contains("</methodCall>") {
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => return,
                        n => read.push_str(&String::from_utf8_lossy(&buffer[..n])),
                    }
                }
                let added = std::mem::take(&mut read)
                    .matches("supervisor.addProcessGroup")
                    .count();
                reported.send(added).unwrap();
                allowed.acquire().await.unwrap().forget();
                let results = "<value><boolean>1</boolean></value>".repeat(1 + added);
                let array = format!("<value><array><data>{results}</data></array></value>");
                let body = format!(
                    "<methodResponse><params><param>{array}</param></params></methodResponse>"
                );
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream
                    .write_all(format!("{head}{body}").as_bytes())
                    .await
                    .unwrap();
            }
        });
        exchanges
    }

    fn add(
        rereads: &Arc<Rereads>,
        client: &Arc<RpcClient>,
        name: String,
    ) -> tokio::task::JoinHandle<Result<SectionAdded, RpcError>> {
        let (rereads, client) = (rereads.clone(), client.clone());
        tokio::spawn(async move { rereads.add(&client, &name, "text").await })
    }

    #[tokio::test]
    async fn all_that_wait_are_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = Arc::new(tokio::sync::Semaphore::new(0));
        let mut exchanges = serve(dir.path(), allowed.clone());
        let client = Arc::new(RpcClient::new(
            dir.path().join("s"),
            Duration::from_secs(20),
        ));
        let rereads = Arc::new(Rereads::once(
            dir.path().join("loaded"),
            dir.path().join("programs"),
        ));
        let first = add(&rereads, &client, "first".to_owned());
        assert_eq!(exchanges.recv().await, Some(1));
        let mut others: Vec<_> = (0..MOST + 10)
            .map(|n| add(&rereads, &client, format!("a{n}")))
            .collect();
        // One of them gives up: it is not added without a caller.
        let gone = others.remove(3);
        while rereads.queue().len() < MOST + 10 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        allowed.add_permits(3);
        assert_eq!(first.await.unwrap().unwrap(), SectionAdded::Now);
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), SectionAdded::Now);
        }
        assert_eq!(
            (exchanges.recv().await, exchanges.recv().await),
            (Some(MOST - 1), Some(10))
        );
        assert_eq!(rereads.kept.names().unwrap().len(), MOST + 10);
        assert!(rereads.read().names().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_was_at_it_may_be_dropped_half_way() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = Arc::new(tokio::sync::Semaphore::new(0));
        let mut exchanges = serve(dir.path(), allowed.clone());
        let client = Arc::new(RpcClient::new(
            dir.path().join("s"),
            Duration::from_secs(20),
        ));
        let rereads = Arc::new(Rereads::once(
            dir.path().join("loaded"),
            dir.path().join("programs"),
        ));
        let first = add(&rereads, &client, "first".to_owned());
        assert_eq!(exchanges.recv().await, Some(1));
        let second = add(&rereads, &client, "second".to_owned());
        while rereads.queue().is_empty() {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // The connection is closed with it, so this server is gone; there is another.
        std::fs::remove_file(dir.path().join("s")).unwrap();
        let mut exchanges = serve(dir.path(), allowed.clone());
        allowed.add_permits(9);
        let _ = second.await.unwrap();
        assert_eq!(
            add(&rereads, &client, "third".to_owned())
                .await
                .unwrap()
                .unwrap(),
            SectionAdded::Now
        );
        assert!(exchanges.recv().await.is_some());
        assert!(!rereads.read().has("first") && !rereads.kept.has("first"));
    }
}
