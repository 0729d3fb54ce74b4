import time

print("hesitating", flush=True)
time.sleep(30)


def handler(event, context):
    return 1
