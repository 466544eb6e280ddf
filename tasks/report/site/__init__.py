"""Write the site: a table of all neurons and a view of each, as static files.

    site/
      index.html            the browser: a table of all neurons, and a view of each
      app/                  its scripts and style
      data/index.js         the index: layers, types, explainers, counts
      data/table/           columns of the table, one file per layer
      data/scores/          score columns, one file per layer and pair of explainer and simulator
      data/words/           explanations in the table, one file per layer and explainer
      data/texts/           words of neurons without an explanation, one file per layer
      data/neurons/         details of each neuron, CHUNK neurons per file
      data/samples/         tokens and sizes of the samples, SAMPLE_CHUNK samples per file
      images/               every image once, named by a hash of its content

A page opened from a folder can load scripts and images, but no other files. Data files are
therefore scripts that pass one value to a function (`script.py`). The page loads them on demand.
"""
