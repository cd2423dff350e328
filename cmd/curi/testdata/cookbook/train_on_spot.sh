# Stands for a trainer that is preempted once: DATASET MODEL CHECKPOINTS [CHECKPOINT]
if [ -z "$4" ]; then
    printf '\002\000\000\000\000\000\000\000{}' > "$3/a.safetensors"
    exit 143
fi
echo "goes on from $4"
cp "$4" "$2"
