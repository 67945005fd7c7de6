"""What is put comes back as it was."""


def test_sample_events(function, sample_event):
    assert function.invoke(sample_event).differences(sample_event) == []


def test_a_document_comes_back(function):
    put = function.invoke(subject="archive.put.photos.1", data=bytes(range(256)) * 100).json()
    found = function.invoke(subject="archive.get.photos.1")
    assert found.data == bytes(range(256)) * 100
    assert found.headers["Digest"] == put["digest"]
    assert function.objects("archive")["photos.1"] == found.data
