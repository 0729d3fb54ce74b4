-- wrk's side of the benches of Lambda's API: one request, the same every time.
-- wrk … -s request.lua URL -- METHOD BODY_FILE PREFIX [NAME VALUE]…

function init(arguments)
  wrk.method = arguments[1]
  local file = io.open(arguments[2], "rb")
  local body = file:read("*a")
  file:close()
  if body ~= "" then
    wrk.body = body
  end
  for index = 4, #arguments, 2 do
    wrk.headers[arguments[index]] = arguments[index + 1]
  end
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_us": %d, "p95_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  ))
end
