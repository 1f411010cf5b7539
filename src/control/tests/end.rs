//! What holds up the end of the server, and what does not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_without_a_request_does_not_hold_up_the_end() {
    for sent in ["", "POST /", "POST /v1/request HTTP/1.1\r\nHost: a\r\nX: "] {
        let fixture = Fixture::new();
        let mut stream = UnixStream::connect(fixture.socket()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        // It was accepted by the time that a later one has its answer.
        call(&fixture.socket(), &Request::Ping).await.unwrap();
        let begun = tokio::time::Instant::now();
        fixture.shutdown.cancel();
        soon_paused(fixture.served).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{sent:?}: {:?}",
            begun.elapsed()
        );
    }
}
