-- wrk's side of the webhook benches: one signed body, a delivery id of its own for every request.
-- wrk … -s webhook.lua URL -- BODY_FILE SIGNATURE PREFIX

local number = 0
local prefix

function init(arguments)
  local file = io.open(arguments[1], "rb")
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["X-Hub-Signature-256"] = arguments[2]
  prefix = arguments[3]
end

function request()
  number = number + 1
  wrk.headers["X-GitHub-Delivery"] = prefix .. number
  return wrk.format()
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  ))
end
