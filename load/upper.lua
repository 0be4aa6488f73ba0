-- For wrk: POST "hello" on every request.
wrk.method = "POST"
wrk.body = "hello"
