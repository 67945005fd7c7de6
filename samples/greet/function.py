"""Answers with a greeting for whoever is named in the message."""


def handler(event, context):
    name = event.json()["name"]
    context.log.info("greeting", name=name)
    return {"greeting": f"{context.env['GREETING']}, {name}!"}
