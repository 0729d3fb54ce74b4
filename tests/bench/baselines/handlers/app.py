"""The function of every bench: hands its event back."""


def handler(event, context):
    return event
