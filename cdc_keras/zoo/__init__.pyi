from cdc_keras.zoo.loading import info as info
from cdc_keras.zoo.loading import load as load
from cdc_keras.zoo.loading import names as names
