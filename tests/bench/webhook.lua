-- wrk's side of the webhook benches: one signed body, a delivery id of its own for every request.
-- wrk … -s webhook.lua URL -- METHOD BODY_FILE PREFIX [NAME VALUE]…

dofile("tests/bench/request.lua")

local number = 0
local prefix
local once = init

function init(arguments)
  once(arguments)
  prefix = arguments[3]
end

function request()
  number = number + 1
  wrk.headers["X-GitHub-Delivery"] = prefix .. number
  return wrk.format()
end
