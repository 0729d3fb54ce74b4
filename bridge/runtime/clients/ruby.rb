# frozen_string_literal: true

# Client of Lambda's Runtime API for Ruby 3.1 and later: loads a function's handler, gives it events, posts answers.
#
# What a handler sees (arguments, context, log lines, error shapes, exit codes) is what AWS's own client shows it. One
# connection to the bridge's own loopback server; only what that server says is understood.

require "json"
require "logger"
require "socket"
require "stringio"

autoload :Net, "net/http" # AWS's client has loaded them: a handler may count on it
autoload :URI, "uri"

$stdout.sync = true

# What handlers and their gems know by name.
class LambdaContext
  attr_reader :aws_request_id, :invoked_function_arn, :log_group_name, :log_stream_name, :function_name,
              :memory_limit_in_mb, :function_version, :identity, :tenant_id, :client_context, :deadline_ms

  def initialize(request)
    @aws_request_id = request["Lambda-Runtime-Aws-Request-Id"]
    @invoked_function_arn = request["Lambda-Runtime-Invoked-Function-Arn"]
    @deadline_ms = request["Lambda-Runtime-Deadline-Ms"].to_i
    @tenant_id = request["Lambda-Runtime-Aws-Tenant-Id"]
    @identity = parsed(request["Lambda-Runtime-Cognito-Identity"])
    @client_context = parsed(request["Lambda-Runtime-Client-Context"])
    @log_group_name = ENV["AWS_LAMBDA_LOG_GROUP_NAME"]
    @log_stream_name = ENV["AWS_LAMBDA_LOG_STREAM_NAME"]
    @function_name = ENV["AWS_LAMBDA_FUNCTION_NAME"]
    @function_version = ENV["AWS_LAMBDA_FUNCTION_VERSION"]
    @memory_limit_in_mb = ENV["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
  end

  def get_remaining_time_in_millis
    [@deadline_ms - Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond), 0].max
  end

  private

  def parsed(text)
    JSON.parse(text) unless text.nil? || text.empty?
  end
end

module AwsLambda
  # Functions may open it again, to read events and write answers in a way of their own.
  class Marshaller
    class << self
      def marshall_request(raw_request)
        return raw_request.body unless raw_request["Content-Type"] == "application/json"

        JSON.parse(raw_request.body)
      end

      def marshall_response(method_response)
        case method_response
        when StringIO, IO then [method_response, "application/unknown"]
        else method_response.to_json
        end
      end
    end
  end
end

# Top-level methods are everybody's private ones: called on this object, as AWS's client calls them.
class LambdaHandler
  FORM = "must be of form FILENAME.METHOD or FILENAME.CLASS.METHOD where FILENAME corresponds with an existing Ruby " \
         "source file FILENAME.rb, CLASS is an optional module/class namespace and METHOD is a callable method. " \
         "If using CLASS, METHOD must be a class-level method."

  attr_reader :handler_file_name

  def initialize(text)
    parts = text.split(".")
    raise ArgumentError, "Invalid handler #{parts}, #{FORM}" unless [2, 3].include?(parts.size)

    @handler_file_name = parts.shift
    @handler_class = parts.shift if parts.size == 2
    @handler_method_name = parts.last
  end

  def call(event, context)
    target = @handler_class ? Kernel.const_get(@handler_class) : self
    target.__send__(@handler_method_name, event: event, context: context)
  end
end

module BridgeRuntime
  API = ENV.fetch("AWS_LAMBDA_RUNTIME_API")
  BASE = "/2018-06-01/runtime"
  TRACE_MAX = 100
  EXIT_INIT = -4
  EXIT_CRITICAL = -1
  TOLD_TYPES = %w[
    ArgumentError NoMethodError Exception StandardError NameError LoadError SystemExit SystemStackError
  ].freeze

  class << self
    attr_accessor :request_id

    # One record of the log, whatever lines it has.
    def log(text)
      $stdout.write("#{text.chomp.tr("\n", "\r")}\n")
    end
  end

  # An answer of the API; header names are found in any case.
  class Answer
    attr_reader :body

    def initialize(headers, body)
      @headers = headers
      @body = body
    end

    def [](name)
      @headers[name.downcase]
    end
  end

  # One keep-alive connection, one request at a time.
  class Connection
    def initialize
      host, port = API.split(":")
      @socket = TCPSocket.new(host, port)
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    end

    def ask(method, where, body = nil, headers = {})
      head = +"#{method} #{BASE}#{where} HTTP/1.1\r\nHost: #{API}\r\n"
      headers.each { |name, value| head << "#{name}: #{value.gsub(/[^ -~]/, "?")}\r\n" }
      head << "Content-Length: #{body.bytesize}\r\n" if body
      @socket.write("#{head}\r\n", body || "")
      heard
    end

    private

    def heard
      exit!(1) if @socket.gets("\r\n").nil? # the bridge has gone
      headers = {}
      until (line = @socket.gets("\r\n").chomp).empty?
        name, value = line.split(":", 2)
        headers[name.downcase] = value.strip.force_encoding(Encoding::UTF_8)
      end
      Answer.new(headers, @socket.read(headers.fetch("content-length", "0").to_i).force_encoding(Encoding::UTF_8))
    end
  end

  # What caller and log get of an exception.
  class Described
    attr_reader :kind

    def initialize(exception, phase)
      name = exception.class.to_s
      own = "#{phase}<#{name}>"
      @kind = TOLD_TYPES.include?(name) ? own : "Function<UserException>"
      @fields = { errorMessage: text(exception), errorType: own, stackTrace: trace(exception) }
    end

    def to_json(*)
      JSON.generate(@fields)
    end

    def log(what)
      BridgeRuntime.log(what)
      BridgeRuntime.log(JSON.pretty_generate(@fields))
    end

    private

    def text(exception)
      exception.message.to_s.dup.force_encoding(Encoding::UTF_8).scrub
    end

    def trace(exception)
      locations = exception.backtrace_locations || []
      locations.first(TRACE_MAX).map(&:to_s).take_while { |line| !line.start_with?(__FILE__) }
    end
  end

  # AWS's lines of the standard logger, with the request's id.
  class LogFormatter < Logger::Formatter
    def call(severity, time, progname, message)
      id = BridgeRuntime.request_id
      text = format("%s, [%s #%d] %5s %s -- %s: %s", severity[0], format_datetime(time), $$, severity, id, progname,
                    msg2str(message))
      "#{text.chomp.tr("\n", "\r")}\n"
    end
  end

  # Given to loggers that write to the log of the function.
  module LoggerPatch
    def initialize(logdev, *rest, formatter: nil, **options)
      if logdev.nil? || [$stdout, $stderr].include?(logdev)
        logdev ||= $stdout
        formatter ||= LogFormatter.new
      end
      super(logdev, *rest, formatter: formatter, **options)
    end
  end

  class Runner
    def initialize
      @api = Connection.new
    end

    def run
      $LOAD_PATH.unshift(Dir.pwd) unless $LOAD_PATH.include?(Dir.pwd)
      begin
        handler = LambdaHandler.new(ENV.fetch("_HANDLER"))
        require handler.handler_file_name
      rescue Exception => e # whatever the function's code raises
        fail_init(e)
      end
      loop { serve(handler, @api.ask("GET", "/invocation/next")) }
    end

    private

    def fail_init(exception)
      error = Described.new(exception, "Init")
      error.log("Init error when loading handler #{ENV.fetch("_HANDLER")}")
      @api.ask("POST", "/init/error", error.to_json, { "Lambda-Runtime-Function-Error-Type" => error.kind })
      exit(EXIT_INIT)
    end

    def serve(handler, request)
      BridgeRuntime.request_id = request["Lambda-Runtime-Aws-Request-Id"]
      ENV["_X_AMZN_TRACE_ID"] = request["Lambda-Runtime-Trace-Id"]
      begin
        event = AwsLambda::Marshaller.marshall_request(request)
        answer, type = AwsLambda::Marshaller.marshall_response(handler.call(event, LambdaContext.new(request)))
        answer = answer.read if type == "application/unknown"
      rescue NameError => e
        fail_invocation(e, is_critical: true)
      rescue StandardError => e
        fail_invocation(e, is_critical: false)
      rescue Exception => e # exit, too much recursion, no memory
        fail_invocation(e, is_critical: true)
      else
        post("response", answer, { "Content-Type" => type || "application/json" })
      end
    end

    # A critical one leaves nobody knows what behind: the process ends with it.
    def fail_invocation(exception, is_critical:)
      error = Described.new(exception, "Function")
      error.log(is_critical ? "Critical exception from handler" : "Error raised from handler method")
      post("error", error.to_json, { "Lambda-Runtime-Function-Error-Type" => error.kind })
      exit(EXIT_CRITICAL) if is_critical
    end

    def post(what, body, headers)
      @api.ask("POST", "/invocation/#{BridgeRuntime.request_id}/#{what}", body, headers)
    end
  end
end

Logger.prepend(BridgeRuntime::LoggerPatch)

module Kernel
  private

  # As AWS's client has it: one record a call.
  def puts(*parts)
    return $stdout.puts(*parts) unless $stdout.equal?(STDOUT)

    BridgeRuntime.log(parts.flatten.map { |part| part.to_s.encode(Encoding::UTF_8) }.join("\n"))
    nil
  end
end

BridgeRuntime::Runner.new.run
