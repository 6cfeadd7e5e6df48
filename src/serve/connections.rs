//! Connections: how many there are, how long they wait, and how they end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::serve::answer::Answers;
use crate::serve::options::Options;
use crate::serve::stalling::Stalling;

/// What was asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Nothing: it goes on.
    No,
    /// To take no more requests, and let transfers end.
    Soon,
    Now,
}

/// Serves connections to `listener` until it is to stop. Returns how many were cut off then.
pub(super) async fn serve(
    listener: TcpListener,
    answers: Arc<Answers>,
    options: &Options,
    mut stop: watch::Receiver<Stop>,
) -> usize {
    let free = Arc::new(Semaphore::new(options.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &free) => accepted,
            () = reaches(&mut stop, Stop::Soon) => break,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer, permit) = accepted;
        let connection = Connection {
            answers: answers.clone(),
            free: free.clone(),
            stop: stop.clone(),
            peer,
            _permit: permit,
        };
        connections.spawn(connection.serve(stream, options.clone()));
    }
    drop(listener);
    let all_end = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all_end => {}
        () = tokio::time::sleep(options.grace) => {}
        () = reaches(&mut stop, Stop::Now) => {}
    }
    let cut = connections.len();
    connections.shutdown().await;
    cut
}

/// Waits until the server is to stop in this way, or in a faster one.
async fn reaches(stop: &mut watch::Receiver<Stop>, wanted: Stop) {
    // Nobody who could ask for it is as good as asking.
    drop(stop.wait_for(|stop| *stop >= wanted).await);
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    /// Until there may be descriptors again.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let permit = free.clone().acquire_owned().await;
                return (stream, peer, permit.expect("the semaphore is never closed"));
            }
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Connection {
    answers: Arc<Answers>,
    free: Arc<Semaphore>,
    stop: watch::Receiver<Stop>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Bytes of the head of a request, and of what waits to be written beyond one piece.
    const BUFFER: usize = 64 << 10;

    async fn serve(mut self, stream: TcpStream, options: Options) {
        // What is written is written in large pieces, or is all there is.
        let _ = stream.set_nodelay(true);
        let (answers, free) = (self.answers.clone(), self.free.clone());
        let answer = service_fn(move |request| {
            let (answers, free) = (answers.clone(), free.clone());
            async move {
                let full = free.available_permits() == 0;
                Ok::<_, Infallible>(answers.answer(request, full).await)
            }
        });
        let stream = TokioIo::new(Stalling::new(stream, options.stall_timeout));
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(options.head_timeout)
                .max_buf_size(Self::BUFFER)
                .serve_connection(stream, answer)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = reaches(&mut self.stop, Stop::Soon) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended
            // The client went away or was idle, or why is in the log already.
            && !(error.is_incomplete_message() || error.is_canceled() || error.is_timeout() || error.is_user())
        {
            log::info!("{}: the connection was closed: {error}", self.peer);
        }
    }
}
