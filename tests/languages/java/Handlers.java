// What the tests of Java functions run: one handler that does what its event says, and one of streams.

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.HashMap;
import java.util.Map;

public class Handlers implements RequestStreamHandler {
    static class Refused extends RuntimeException {
        Refused(String text, Throwable cause) {
            super(text, cause);
        }
    }

    public Object handle(Map<String, Object> event, Context context) {
        switch (String.valueOf(event.get("act"))) {
            case "echo":
                return event.get("value");
            case "context":
                return seen(context);
            case "error":
                throw new Refused("not so", new IllegalStateException("below"));
            case "exit":
                System.exit(3);
                return null;
            case "halt":
                Runtime.getRuntime().halt(4);
                return null;
            case "log":
                System.out.println("printed");
                System.err.println("to stderr");
                context.getLogger().log("logged");
                return null;
            case "pid":
                return ProcessHandle.current().pid();
            default:
                return null;
        }
    }

    private static Map<String, Object> seen(Context context) {
        Map<String, Object> found = new HashMap<>();
        found.put("request_id", context.getAwsRequestId());
        found.put("arn", context.getInvokedFunctionArn());
        found.put("custom", context.getClientContext().getCustom());
        found.put("name", context.getFunctionName());
        found.put("version", context.getFunctionVersion());
        found.put("memory", context.getMemoryLimitInMB());
        found.put("group", context.getLogGroupName());
        found.put("stream", context.getLogStreamName());
        found.put("left_ms", context.getRemainingTimeInMillis());
        found.put("trace", System.getProperty("com.amazonaws.xray.traceHeader"));
        return found;
    }

    @Override
    public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
        output.write("<".getBytes());
        input.transferTo(output);
        output.write(">".getBytes());
    }
}
