//! A WebSocket client: connects, sends a text and receives the echo.

use std::net::{SocketAddr, TcpStream};

use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// An open WebSocket.
pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Connects to `/ws` of this host.
    #[track_caller]
    pub fn open(to: SocketAddr, host: &str) -> Self {
        let stream = super::http::connect(to).unwrap();
        match tungstenite::client(format!("ws://{host}/ws"), stream) {
            Ok((socket, _)) => Self(socket),
            Err(e) => panic!("no WebSocket at {host}: {e}"),
        }
    }

    /// Sends a text and returns what comes back; an error when the connection has ended.
    pub fn echo(&mut self, text: &str) -> Result<String, tungstenite::Error> {
        self.0.send(Message::text(text))?;
        loop {
            match self.0.read()? {
                Message::Text(back) => return Ok(back.to_string()),
                Message::Close(_) => return Err(tungstenite::Error::ConnectionClosed),
                _ => {}
            }
        }
    }

    /// Waits until the other side closes, and returns the status; `None`: the connection ended
    /// without a close frame.
    pub fn goodbye(mut self) -> Option<u16> {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends a close frame and waits for the other side.
    pub fn close(mut self) {
        let _ = self.0.close(None);
        while self.0.read().is_ok() {}
    }
}
